"""Reading and embedding by actors of Ray, on one machine or on many: start reading at ``executor.py``."""
