"""Recognisers of private data: secrets, accounts, addresses, telephone numbers, identity numbers by
country."""
