"""The paper's claims: each with its evidence, its verdict, its row and its curve."""
