-- databases: rng hsh
-- feature: order by
SELECT uid FROM users ORDER BY uid; -- ordered
SELECT uid, score FROM users ORDER BY score, uid; -- ordered
SELECT uid, score FROM users ORDER BY score DESC, uid DESC; -- ordered
SELECT uid, name FROM users ORDER BY name, uid; -- ordered
SELECT uid, name FROM users ORDER BY name DESC, uid; -- ordered
SELECT uid, nick FROM users ORDER BY nick, uid; -- ordered
SELECT uid, born FROM users ORDER BY born DESC, uid; -- ordered
SELECT name FROM users ORDER BY grp, uid; -- ordered
SELECT * FROM orders ORDER BY placed, uid, oid; -- ordered
SELECT * FROM orders ORDER BY state DESC, total, uid, oid; -- ordered
SELECT * FROM small ORDER BY name, uid; -- ordered
SELECT * FROM huge ORDER BY uid, seq; -- ordered
SELECT * FROM huge ORDER BY v DESC, uid DESC, seq; -- ordered
SELECT uid, n, ci FROM facts ORDER BY ci, uid, n; -- ordered
SELECT uid, n, l1 FROM facts ORDER BY l1 DESC, uid, n; -- ordered
SELECT uid, n, colour FROM facts ORDER BY colour, uid, n; -- ordered
SELECT uid, n, marks FROM facts ORDER BY marks DESC, uid, n; -- ordered
SELECT uid, n, bits + 0 FROM facts ORDER BY bits, uid, n; -- ordered
SELECT uid, n, dbl FROM facts ORDER BY dbl, uid, n; -- ordered
SELECT uid, n, flt FROM facts ORDER BY flt DESC, uid, n; -- ordered
SELECT uid, n, big FROM facts ORDER BY big, uid, n; -- ordered
SELECT uid, n, clock FROM facts ORDER BY clock, uid, n; -- ordered
SELECT uid, n, yr FROM facts ORDER BY yr DESC, uid, n; -- ordered
SELECT uid, n, ubig FROM facts ORDER BY ubig, uid, n; -- ordered
SELECT uid, n, vb FROM facts ORDER BY vb, uid, n; -- ordered
SELECT uid, n, seen FROM facts ORDER BY seen, uid, n; -- ordered
SELECT uid, n, doc FROM facts ORDER BY JSON_LENGTH(doc), uid, n; -- ordered
SELECT uid FROM users ORDER BY score IS NULL, score, uid; -- ordered
SELECT uid FROM users ORDER BY uid % 3, ABS(uid % 100) DESC, uid; -- ordered
SELECT uid FROM users ORDER BY LENGTH(nick), nick COLLATE utf8mb4_general_ci, uid; -- ordered
SELECT uid FROM users ORDER BY BINARY name, uid; -- ordered
SELECT uid FROM users ORDER BY FIELD(grp, 2, 1), uid; -- ordered
SELECT uid AS k, score AS s FROM users ORDER BY s, k; -- ordered
SELECT uid, score FROM users ORDER BY 2 DESC, 1; -- ordered
SELECT u.uid, o.oid FROM users u JOIN orders o USING (uid) ORDER BY o.total, u.uid, o.oid; -- ordered
SELECT a.aid, u.uid FROM audit a JOIN users u ON a.uid = u.uid ORDER BY u.name, a.aid; -- ordered
SELECT uid, name AS uid2 FROM users ORDER BY -(uid % 7), uid; -- ordered
SELECT uid FROM users ORDER BY NULL;
SELECT name, nick FROM users ORDER BY CONCAT(name, nick), uid; -- ordered
SELECT level, label FROM levels ORDER BY label, level; -- ordered

-- feature: limit
SELECT uid FROM users ORDER BY uid LIMIT 5; -- ordered
SELECT uid FROM users ORDER BY uid LIMIT 5 OFFSET 10; -- ordered
SELECT uid FROM users ORDER BY uid DESC LIMIT 30, 100; -- ordered
SELECT uid FROM users ORDER BY name, uid LIMIT 7; -- ordered
SELECT uid FROM users ORDER BY score DESC, uid LIMIT 3, 4; -- ordered
SELECT uid FROM users ORDER BY uid LIMIT 0; -- ordered
SELECT uid FROM users ORDER BY uid LIMIT 18446744073709551615 OFFSET 28; -- ordered
SELECT uid FROM users LIMIT 3; -- count
SELECT * FROM orders LIMIT 10 OFFSET 20; -- count
SELECT uid FROM users WHERE grp = 1 LIMIT 100;
SELECT uid FROM users WHERE uid IN (1, 5, 500, 2000) ORDER BY uid LIMIT 3; -- ordered
SELECT u.uid, o.oid FROM users u JOIN orders o ON u.grp = o.oid ORDER BY u.uid, o.uid, o.oid LIMIT 4; -- ordered
(SELECT uid FROM users ORDER BY uid LIMIT 2); -- ordered
SELECT uid FROM (SELECT uid FROM users ORDER BY uid DESC LIMIT 4) AS d ORDER BY uid; -- ordered

-- feature: found rows
-- session
SELECT SQL_CALC_FOUND_ROWS uid FROM users ORDER BY uid LIMIT 3; -- ordered
SELECT FOUND_ROWS();
-- end
-- session
SELECT SQL_CALC_FOUND_ROWS * FROM orders WHERE total > 5 LIMIT 2; -- count
SELECT FOUND_ROWS();
SELECT SQL_CALC_FOUND_ROWS grp, COUNT(*) FROM users GROUP BY grp ORDER BY grp LIMIT 1; -- ordered
SELECT FOUND_ROWS();
-- end

-- feature: for update
SELECT uid, score FROM users WHERE grp = 1 FOR UPDATE;
SELECT uid FROM users ORDER BY uid LIMIT 3 FOR UPDATE; -- ordered
SELECT uid FROM users WHERE uid IN (1, 5, 500) LOCK IN SHARE MODE;
SELECT u.uid, o.oid FROM users u JOIN orders o USING (uid) WHERE o.total > 10 FOR UPDATE;
SELECT uid FROM users WHERE uid > 0 FOR SHARE; -- only mysql
SELECT uid FROM users WHERE uid > 0 FOR UPDATE SKIP LOCKED;
SELECT uid FROM users WHERE uid > 0 FOR UPDATE NOWAIT;
SELECT COUNT(*) FROM users FOR UPDATE;

-- feature: window
SELECT uid, ROW_NUMBER() OVER (ORDER BY uid) FROM users;
SELECT uid, ROW_NUMBER() OVER (PARTITION BY grp ORDER BY score DESC, uid) FROM users;
SELECT uid, RANK() OVER (ORDER BY score), DENSE_RANK() OVER (ORDER BY score) FROM users;
SELECT uid, SUM(score) OVER (PARTITION BY grp) FROM users;
SELECT uid, SUM(score) OVER (ORDER BY uid ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM users;
SELECT uid, AVG(score) OVER (PARTITION BY grp ORDER BY uid) FROM users;
SELECT uid, LAG(score) OVER (ORDER BY uid), LEAD(score, 2) OVER (ORDER BY uid) FROM users;
SELECT uid, FIRST_VALUE(nick) OVER (PARTITION BY grp ORDER BY uid), LAST_VALUE(nick) OVER (PARTITION BY grp ORDER BY uid) FROM users;
SELECT uid, NTILE(4) OVER (ORDER BY uid) FROM users;
SELECT uid, PERCENT_RANK() OVER (ORDER BY score), CUME_DIST() OVER (ORDER BY score) FROM users;
SELECT uid, COUNT(*) OVER () FROM users WHERE grp = 1;
SELECT uid, COUNT(*) OVER (PARTITION BY uid) FROM orders;
SELECT uid, oid, SUM(total) OVER (PARTITION BY uid ORDER BY oid) FROM orders;
SELECT grp, COUNT(*), SUM(COUNT(*)) OVER (ORDER BY grp) FROM users GROUP BY grp;
SELECT grp, RANK() OVER (ORDER BY SUM(score) DESC) FROM users GROUP BY grp;
SELECT uid, RANK() OVER w FROM users WINDOW w AS (PARTITION BY grp ORDER BY score);
SELECT * FROM (SELECT uid, ROW_NUMBER() OVER (PARTITION BY grp ORDER BY uid) AS rn FROM users) AS d WHERE rn = 1;
SELECT u.uid, o.oid, ROW_NUMBER() OVER (PARTITION BY u.grp ORDER BY o.total, u.uid, o.oid) FROM users u JOIN orders o ON o.uid = u.uid;
SELECT uid, SUM(grp) OVER (ORDER BY score RANGE UNBOUNDED PRECEDING) FROM users;
SELECT uid, ROW_NUMBER() OVER (ORDER BY uid) AS r FROM users ORDER BY r DESC LIMIT 3; -- ordered
SELECT l.level, RANK() OVER (ORDER BY l.level), u.uid FROM levels l JOIN users u ON u.grp = l.level;
-- feature: HAVING beside ORDER BY
SELECT total FROM orders o HAVING uid = 5 ORDER BY o.state, o.uid, o.oid; -- error
SELECT total, uid AS u FROM orders o HAVING u = 5 ORDER BY o.state, o.uid, o.oid; -- ordered
SELECT uid, COUNT(*) AS n FROM orders GROUP BY uid HAVING n > 1 AND uid IS NOT NULL ORDER BY n, uid; -- ordered
