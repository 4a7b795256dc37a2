"""How tables of the tests are spelt, where nothing may be inferred from their rows."""

__all__ = ["FORM"]

FORM = "data.delimiter=',' data.decimal=. data.thousands='' data.encoding=utf-8"
