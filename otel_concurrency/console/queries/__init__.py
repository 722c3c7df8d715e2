"""What the console asks of the store: plain functions from a reader, a scope and filters to frozen rows.

Every query is bounded: by the scope's time range, and by a limit on the rows it returns.
"""
