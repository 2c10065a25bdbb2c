-- databases: rng hsh
-- feature: transaction over shards
-- session
BEGIN;
UPDATE users SET grp = 70 WHERE uid = 1;
UPDATE users SET grp = 70 WHERE uid = 500;
UPDATE users SET grp = 70 WHERE uid = 2000;
SELECT uid FROM users WHERE grp = 70;
COMMIT;
SELECT uid FROM users WHERE grp = 70;
-- end
-- session
BEGIN;
UPDATE users SET grp = 71 WHERE uid = 1;
INSERT INTO users (uid, grp) VALUES (300, 71);
DELETE FROM users WHERE uid = 2000;
ROLLBACK;
SELECT COUNT(*) FROM users;
-- end
-- session
BEGIN;
SELECT COUNT(*) FROM users;
UPDATE users SET score = 1;
SELECT SUM(score) FROM users;
COMMIT;
-- end
-- session
BEGIN;
INSERT INTO orders (uid, oid, total) VALUES (1, 70, 1), (300, 70, 1), (2500, 70, 1);
UPDATE users u JOIN orders o USING (uid) SET u.score = 5 WHERE o.oid = 70;
SELECT COUNT(*) FROM orders WHERE oid = 70;
COMMIT;
-- end

-- feature: savepoints over shards
-- session
BEGIN;
UPDATE users SET grp = 72 WHERE uid = 1;
SAVEPOINT a;
UPDATE users SET grp = 73 WHERE uid = 500;
UPDATE users SET grp = 73 WHERE uid = 6;
ROLLBACK TO a;
SELECT uid, grp FROM users WHERE grp > 70;
UPDATE users SET grp = 74 WHERE uid = 2000;
COMMIT;
-- end
-- session
BEGIN;
SAVEPOINT a;
UPDATE users SET grp = 75;
SAVEPOINT b;
DELETE FROM users WHERE uid > 5;
ROLLBACK TO SAVEPOINT b;
RELEASE SAVEPOINT a;
COMMIT;
SELECT COUNT(*) FROM users WHERE grp = 75;
-- end
-- session
BEGIN;
UPDATE users SET grp = 76 WHERE uid = 1;
INSERT INTO users (uid) VALUES (300), (1), (2500); -- error
SELECT COUNT(*) FROM users WHERE grp = 76;
COMMIT;
-- end

-- feature: autocommit off
-- session
SET autocommit = 0;
SELECT COUNT(*) FROM users;
UPDATE users SET grp = 80 WHERE uid IN (1, 500);
ROLLBACK;
UPDATE users SET grp = 81 WHERE uid IN (1, 500);
COMMIT;
SELECT uid FROM users WHERE grp > 75;
SET autocommit = 1;
-- end
-- session
SET autocommit = 0;
INSERT INTO small (uid, v) VALUES (11, 1), (111, 1);
SET autocommit = 1;
SELECT COUNT(*) FROM small WHERE v = 1;
-- end

-- feature: reference tables in transactions
-- session
BEGIN;
UPDATE levels SET label = 'tx' WHERE level = 1;
INSERT INTO levels (level, label) VALUES (60, 'sixty');
SELECT l.label, u.uid FROM levels l JOIN users u ON u.grp = l.level;
COMMIT;
-- end
-- session
BEGIN;
UPDATE levels SET label = 'tx' WHERE level = 1;
UPDATE users SET grp = 1 WHERE uid = 6;
ROLLBACK;
SELECT * FROM levels;
-- end
-- session
BEGIN;
DELETE FROM countries WHERE pop > 2000;
SAVEPOINT a;
DELETE FROM countries;
ROLLBACK TO a;
SELECT * FROM countries;
COMMIT;
-- end

-- feature: key moves in transactions
-- session
BEGIN;
UPDATE users SET uid = 9999 WHERE uid = 5;
SELECT uid FROM users WHERE uid IN (5, 9999);
ROLLBACK;
SELECT uid FROM users WHERE uid IN (5, 9999);
-- end

-- feature: counts of writes
-- session
UPDATE users SET grp = 90 WHERE uid IN (1, 5, 500);
SELECT ROW_COUNT();
DELETE FROM orders WHERE total > 30;
SELECT ROW_COUNT();
INSERT IGNORE INTO users (uid) VALUES (1), (2), (300);
SELECT ROW_COUNT();
SHOW WARNINGS;
-- end
-- session
INSERT INTO huge (uid, v) VALUES (1, 1), (300, 2), (2500, 3);
INSERT INTO huge (uid, v) VALUES (77, 1);
-- end
