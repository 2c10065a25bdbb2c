-- Deadlocks over shards: a transaction over several shards that waits for a lock on one shard, while others wait for it
-- on another, is announced here, on its first shard, for the other proxies. Only such waits are written down, and only
-- after `transactions.deadlock_after`. A row that a crash has left says nothing: the server transactions that it names
-- are gone, and their numbers do not come again. It is deleted after an hour.
CREATE TABLE IF NOT EXISTS _shardproxy.lock_wait (
  xid        VARBINARY(64) NOT NULL COMMENT 'global part of the XA id',
  members    TEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'a line for each shard: shard/connection/transaction number/its begin',
  written_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (xid)
) ENGINE = InnoDB;
