"""Methods: training stages. One plug-in a file."""
