"""The FastAPI quickstart for Behest: app.py and chat.py are its code.

Changed:
* `from behest import Behest` is `from weir_client import AsyncWeir as Behest`.
* It is started with `uvicorn quickstart.app:app`: `from .auth` needs a package.

The quickstart leaves auth.py to its reader, and has no route for `chat_for_user`: server.py has.
"""
