-- Schema changes over several shards, and the tables that were registered while the proxy ran.
-- `shardctl migrate` applies this file to every primary. A file that has been applied is never edited.

-- One row for each schema change over several shards, on the first shard of its keyspace: written before the change
-- starts, so that a crash in the middle leaves a record that `shardctl ddl` can go on from.
CREATE TABLE IF NOT EXISTS _shardproxy.ddl (
  id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  keyspace   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  state      ENUM('running', 'failed', 'done', 'reverted') CHARACTER SET ascii NOT NULL DEFAULT 'running',
  statement  LONGBLOB NOT NULL COMMENT 'as the client sent it, in its character set',
  in_schema  VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL COMMENT 'default database of the session',
  session    MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'SET that brings a connection to the state of the session',
  change_info MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'JSON: names of the tables, reverse statements, registration',
  error      TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  started_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  changed_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  KEY by_keyspace (keyspace, id)
) ENGINE = InnoDB;

-- What became of it on each shard. 'running' is written before the statement is sent: after a crash it means that
-- somebody must look. `before_it` holds the definitions of the tables before, to look with.
CREATE TABLE IF NOT EXISTS _shardproxy.ddl_shard (
  ddl_id     BIGINT UNSIGNED NOT NULL,
  place      INT UNSIGNED NOT NULL COMMENT 'order in which the shards run it',
  shard      VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  state      ENUM('waiting', 'running', 'failed', 'done', 'reverted') CHARACTER SET ascii NOT NULL DEFAULT 'waiting',
  thread     BIGINT UNSIGNED NULL COMMENT 'connection on that server that runs the statement',
  before_it  LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL COMMENT 'JSON: table to definition, null where there was none',
  error      TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  changed_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (ddl_id, place)
) ENGINE = InnoDB;

-- The tables of unfinished changes: another change of the same table finds the row and is refused.
CREATE TABLE IF NOT EXISTS _shardproxy.ddl_table (
  keyspace   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  table_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  ddl_id     BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (keyspace, table_name),
  KEY by_change (ddl_id)
) ENGINE = InnoDB;

-- Tables registered by CREATE TABLE … /*shardproxy: key=…*/, on every shard of the keyspace. The copy of the keyspace's
-- first shard counts; where that does not answer, the next one's.
CREATE TABLE IF NOT EXISTS _shardproxy.table_config (
  keyspace   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  table_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  kind       ENUM('sharded', 'reference', 'single') CHARACTER SET ascii NOT NULL,
  key_column VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL COMMENT 'of a sharded table',
  shard      VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'of a single table',
  PRIMARY KEY (keyspace, table_name)
) ENGINE = InnoDB;
