"""The measurements behind the chapters, one module per chapter; :mod:`rgz` does not need them."""
