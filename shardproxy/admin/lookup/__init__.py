"""`shardctl lookup`: entries for rows that were there before their lookup index, and whether entries and rows agree.

Works on the servers themselves, while proxies write. A batch of rows is locked (shared) while its entries are made, so
that none of them is deleted or changed meanwhile; new rows bring their entries themselves.
"""
