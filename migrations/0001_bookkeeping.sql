-- What shardproxy keeps on each shard, next to the data it is about, so that both commit together.
-- `shardctl migrate` applies this file to every primary. Statements end with ";" at the end of a line.
-- Everything here may be run again. A file that has been applied is never edited; a change is a new file.

-- Atomic commit over shards. The row is written inside the transaction of the first shard, so that its commit is the
-- decision; recovery inserts a conflicting abort row under the same key. A row may go only when no branch of that xid
-- is left anywhere, hence `coordinator` (whose it is) and `decided_at` (what is old enough to look at).
CREATE TABLE IF NOT EXISTS _shardproxy.xa_decision (
  xid         VARBINARY(64) NOT NULL COMMENT 'global part of the XA id; never used twice',
  outcome     ENUM('commit', 'abort') NOT NULL,
  coordinator VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'identity of the proxy that ran the transaction',
  decided_by  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'identity that wrote the row: the coordinator, or who recovers',
  decided_at  TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (xid),
  KEY by_coordinator (coordinator, decided_at)
) ENGINE = InnoDB;

-- Who may work on a move. An orchestrator raises `generation` when it starts; each of its transactions on this shard
-- locks the row first and goes on only under its own generation. `writes` is raised by each such transaction: the
-- change is what marks the transaction in the binlog as ours, and streams skip marked transactions.
CREATE TABLE IF NOT EXISTS _shardproxy.move (
  move_id    BIGINT UNSIGNED NOT NULL,
  keyspace   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  generation BIGINT UNSIGNED NOT NULL,
  writes     BIGINT UNSIGNED NOT NULL DEFAULT 0,
  changed_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (move_id)
) ENGINE = InnoDB;

-- The fence of a move, on the shard that gives keys away. Write transactions on moving keys read `epoch` with a shared
-- lock and commit only under the epoch of their own map; closing the fence raises it. It only ever grows, also over
-- moves and time-outs: no epoch is used twice.
CREATE TABLE IF NOT EXISTS _shardproxy.fence (
  move_id    BIGINT UNSIGNED NOT NULL,
  epoch      BIGINT UNSIGNED NOT NULL,
  changed_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (move_id)
) ENGINE = InnoDB;

-- One row for each connection of a proxy that prepares XA branches. A branch changes its row before it prepares: a
-- prepared branch gives shared locks back (MariaDB, and MySQL after a crash) but keeps this exclusive one, so whoever
-- closes the fence reads all rows with a shared lock and so waits for every branch.
CREATE TABLE IF NOT EXISTS _shardproxy.fence_slot (
  proxy    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'identity of the proxy',
  slot     INT UNSIGNED NOT NULL COMMENT 'number of the connection within that proxy',
  branches BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'raised by each branch: an update must change something to lock',
  PRIMARY KEY (proxy, slot)
) ENGINE = InnoDB;

-- Written after the fence has closed. A stream that has applied the marker of this epoch has applied everything before it.
CREATE TABLE IF NOT EXISTS _shardproxy.marker (
  move_id    BIGINT UNSIGNED NOT NULL,
  epoch      BIGINT UNSIGNED NOT NULL,
  written_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (move_id, epoch)
) ENGINE = InnoDB;

-- A stream of changes into this shard. The change, the position and the restart position commit together, after the
-- row is locked and its position compared. No row: the stream has ended. Positions are opaque text of the change
-- source. `restart_position` is the first XA PREPARE whose outcome is not known yet, otherwise the position.
CREATE TABLE IF NOT EXISTS _shardproxy.stream (
  move_id          BIGINT UNSIGNED NOT NULL,
  direction        ENUM('forward', 'reverse') NOT NULL,
  source_shard     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  position         MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  restart_position MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  applied          BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'transactions applied so far',
  changed_at       TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (move_id, direction)
) ENGINE = InnoDB;

-- How far each table of a stream has been copied. The watermark is the encoded primary key of the last copied row.
CREATE TABLE IF NOT EXISTS _shardproxy.stream_table (
  move_id     BIGINT UNSIGNED NOT NULL,
  direction   ENUM('forward', 'reverse') NOT NULL,
  table_name  VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  watermark   BLOB NULL COMMENT 'NULL: no row copied yet',
  copied_rows BIGINT UNSIGNED NOT NULL DEFAULT 0,
  finished    TINYINT UNSIGNED NOT NULL DEFAULT 0 COMMENT '1: the watermark is above every row',
  PRIMARY KEY (move_id, direction, table_name)
) ENGINE = InnoDB;

-- Numbers that are unique over all shards. A proxy takes a block by raising `next_value`; `generation` is raised when
-- the sequence moves to another shard, so that blocks taken from an old copy are known to be stale.
CREATE TABLE IF NOT EXISTS _shardproxy.sequence (
  keyspace   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  name       VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'table, or table.column',
  next_value BIGINT UNSIGNED NOT NULL DEFAULT 1,
  generation BIGINT UNSIGNED NOT NULL DEFAULT 1,
  PRIMARY KEY (keyspace, name)
) ENGINE = InnoDB;

-- Lookup indexes: from the value of another column to the shard key. A row lives where its own value hashes to.
-- `distinct_by` is empty in a unique index, so that a second row with the value is refused (1062), and the shard key
-- in others, so that many rows may share a value.
CREATE TABLE IF NOT EXISTS _shardproxy.lookup (
  keyspace    VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  index_name  VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  value       VARBINARY(767) NOT NULL COMMENT 'key bytes of the looked-up value',
  distinct_by VARBINARY(767) NOT NULL DEFAULT '',
  shard_key   VARBINARY(767) NOT NULL COMMENT 'key bytes of the shard key',
  PRIMARY KEY (keyspace, index_name, value, distinct_by)
) ENGINE = InnoDB;
