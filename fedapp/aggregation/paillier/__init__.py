"""The Paillier cryptosystem (Paillier 1999) by python-paillier."""
