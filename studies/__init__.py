"""The measurements behind the chapters, one module a chapter; nothing in :mod:`rgz` needs them."""
