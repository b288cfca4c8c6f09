"""What `app.py` shows. It reads the store and never writes to it, and never loads a plug-in or torch.

What a user, a document or a model wrote is shown with `st.text`, `st.code`, in charts or in cells, never as Markdown or
HTML: words of others are text.
"""
