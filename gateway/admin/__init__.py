"""Use cases of managing tokens: who may change which token, and the changes themselves."""
