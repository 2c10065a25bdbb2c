-- databases: rng hsh
-- feature: aggregate
SELECT COUNT(*) FROM users;
SELECT COUNT(*), COUNT(grp), COUNT(score), COUNT(1), COUNT(NULL) FROM users;
SELECT SUM(score), AVG(score), MIN(score), MAX(score) FROM users;
SELECT SUM(grp), AVG(grp), SUM(uid), AVG(uid) FROM users;
SELECT SUM(total), AVG(total), SUM(total) / COUNT(*), -SUM(total) FROM orders;
SELECT MIN(uid), MAX(uid) FROM users WHERE grp = 2;
SELECT MIN(nick), MAX(nick), MIN(born), MAX(born) FROM users;
SELECT MIN(placed), MAX(placed), MIN(state), MAX(state) FROM orders;
SELECT MIN(colour), MAX(colour), MIN(marks), MAX(clock), MIN(clock), MIN(yr), MAX(seen), MIN(vb), MAX(big) FROM facts;
SELECT MIN(dbl), MAX(dbl), MIN(flt), MAX(flt) FROM facts;
SELECT SUM(big), AVG(big), SUM(n), AVG(n) FROM facts;
SELECT SUM(dbl), AVG(dbl), SUM(flt), AVG(flt) FROM facts; -- float
SELECT SUM(yr), AVG(yr), SUM(bits), AVG(bits) FROM facts; -- float
SELECT BIT_AND(grp), BIT_OR(grp), BIT_XOR(grp), BIT_XOR(uid) FROM users;
SELECT BIT_AND(bits), BIT_OR(bits), BIT_XOR(bits) FROM facts;
SELECT STD(score), STDDEV(score), STDDEV_POP(score), STDDEV_SAMP(score) FROM users; -- float
SELECT VARIANCE(score), VAR_POP(score), VAR_SAMP(score), VARIANCE(uid % 10) FROM users; -- float
SELECT COUNT(DISTINCT grp), COUNT(DISTINCT score), COUNT(DISTINCT name), COUNT(DISTINCT grp, born) FROM users;
SELECT SUM(DISTINCT grp), AVG(DISTINCT grp), SUM(DISTINCT score), MIN(DISTINCT score) FROM users;
SELECT COUNT(DISTINCT ci), COUNT(DISTINCT l1), COUNT(DISTINCT colour), COUNT(DISTINCT vb) FROM facts;
SELECT GROUP_CONCAT(uid ORDER BY uid) FROM users;
SELECT GROUP_CONCAT(DISTINCT grp ORDER BY grp DESC SEPARATOR ';') FROM users;
SELECT GROUP_CONCAT(name, ':', uid ORDER BY name, uid SEPARATOR ' ') FROM users;
SELECT GROUP_CONCAT(nick ORDER BY score DESC, uid) FROM users WHERE grp IS NOT NULL;
SELECT JSON_ARRAYAGG(uid) FROM users; -- json
SELECT JSON_LENGTH(JSON_ARRAYAGG(score)) FROM users;
SELECT JSON_LENGTH(JSON_OBJECTAGG(uid, grp)) FROM users;
SELECT COUNT(*), SUM(score) FROM users WHERE uid > 9999999999999999999;
SELECT COUNT(*), SUM(score), MIN(uid), GROUP_CONCAT(uid) FROM users WHERE 0;
SELECT COUNT(*) + 1, MAX(uid) - MIN(grp), CONCAT(COUNT(*), ' rows') FROM users;
SELECT SUM(CASE WHEN grp = 1 THEN score ELSE 0 END), SUM(grp = 2), COUNT(IF(score > 5, 1, NULL)) FROM users;
SELECT ROUND(AVG(score), 2), FORMAT(SUM(score), 1), CAST(AVG(grp) AS SIGNED) FROM users;
SELECT SUM(u.score), COUNT(o.oid) FROM users u LEFT JOIN orders o USING (uid);
SELECT COUNT(*) FROM users WHERE name = 'ann';
SELECT SUM(9223372036854775807), SUM(uid * 1.5) FROM small;
SELECT COUNT(*) * 9223372036854775807 FROM small; -- error
SELECT SUM(v) * 9223372036854775807 FROM small;
SELECT MAX(uid) FROM users HAVING MAX(uid) > 5;
SELECT 1 FROM users HAVING COUNT(*) > 100;
SELECT COUNT(*) FROM users LIMIT 0;
SELECT MAX(score) FROM users ORDER BY 1 LIMIT 1;

-- feature: group by
SELECT grp, COUNT(*) FROM users GROUP BY grp;
SELECT grp, SUM(score), AVG(score) FROM users GROUP BY grp ORDER BY grp; -- ordered
SELECT grp, born, COUNT(*) FROM users GROUP BY grp, born;
SELECT uid, COUNT(*), SUM(total) FROM orders GROUP BY uid;
SELECT state, COUNT(*), MAX(placed) FROM orders GROUP BY state ORDER BY COUNT(*) DESC, state; -- ordered
SELECT COUNT(*) FROM users GROUP BY name;
SELECT COUNT(*), SUM(uid % 10) FROM users GROUP BY name HAVING COUNT(*) > 1;
SELECT COUNT(*) FROM facts GROUP BY ci;
SELECT COUNT(*) FROM facts GROUP BY l1;
SELECT colour, COUNT(*) FROM facts GROUP BY colour ORDER BY colour; -- ordered
SELECT marks, COUNT(*) FROM facts GROUP BY marks ORDER BY marks DESC; -- ordered
SELECT clock, COUNT(*) FROM facts GROUP BY clock ORDER BY clock; -- ordered
SELECT dbl, COUNT(*) FROM facts GROUP BY dbl ORDER BY dbl; -- ordered
SELECT big, COUNT(*) FROM facts GROUP BY big ORDER BY big DESC LIMIT 5; -- ordered
SELECT vb, MIN(n) FROM facts GROUP BY vb ORDER BY vb; -- ordered
SELECT yr, SUM(n) FROM facts GROUP BY yr ORDER BY yr LIMIT 2, 3; -- ordered
SELECT uid % 3, COUNT(*) FROM users GROUP BY uid % 3;
SELECT uid % 3 AS k, COUNT(*) FROM users GROUP BY k ORDER BY k; -- ordered
SELECT YEAR(born), COUNT(*) FROM users GROUP BY 1 ORDER BY 1; -- ordered
SELECT grp IS NULL, COUNT(*) FROM users GROUP BY grp IS NULL;
SELECT LEFT(nick, 1), COUNT(*) FROM users GROUP BY LEFT(nick, 1);
SELECT CASE WHEN score > 10 THEN 'high' WHEN score > 5 THEN 'mid' END AS band, COUNT(*) FROM users GROUP BY band;
SELECT grp, GROUP_CONCAT(uid ORDER BY uid) FROM users GROUP BY grp;
SELECT grp, COUNT(DISTINCT score), COUNT(DISTINCT name) FROM users GROUP BY grp;
SELECT grp, STDDEV(score) FROM users GROUP BY grp; -- float
SELECT grp, JSON_ARRAYAGG(uid) FROM users GROUP BY grp; -- json
SELECT grp, ANY_VALUE(grp + 1) FROM users GROUP BY grp; -- only mysql
SELECT u.grp, COUNT(o.oid), SUM(o.total) FROM users u LEFT JOIN orders o ON o.uid = u.uid GROUP BY u.grp;
SELECT u.grp, s.v, COUNT(*) FROM users u JOIN small s ON s.v = u.grp GROUP BY u.grp, s.v;
SELECT l.label IS NULL, COUNT(*) FROM users u JOIN levels l ON l.level = u.grp GROUP BY l.label IS NULL;
SELECT grp FROM users GROUP BY grp;
SELECT grp, COUNT(*) AS n FROM users GROUP BY grp ORDER BY n DESC, grp LIMIT 2; -- ordered
SELECT MAX(n) FROM facts GROUP BY uid ORDER BY uid LIMIT 3; -- ordered
SELECT grp + 1, SUM(score) * 2 FROM users GROUP BY grp + 1;
SELECT grp, 5 AS five, NOW() > '2020-01-01' FROM users GROUP BY grp;

-- feature: having
SELECT grp, COUNT(*) FROM users GROUP BY grp HAVING COUNT(*) > 6;
SELECT grp, SUM(score) AS s FROM users GROUP BY grp HAVING s > 40 ORDER BY grp; -- ordered
SELECT grp FROM users GROUP BY grp HAVING AVG(score) BETWEEN 5 AND 12;
SELECT uid FROM orders GROUP BY uid HAVING COUNT(*) = 1 AND MAX(total) > 10;
SELECT grp, COUNT(*) FROM users GROUP BY grp HAVING grp IN (1, 2) OR grp IS NULL;
SELECT grp FROM users GROUP BY grp HAVING COUNT(DISTINCT score) > 4;
SELECT grp, MIN(score) FROM users GROUP BY grp HAVING EXISTS (SELECT 1 FROM orders WHERE oid = grp);
SELECT uid, score FROM users HAVING score > 10 ORDER BY score, uid; -- ordered

-- feature: rollup
SELECT grp, COUNT(*) FROM users GROUP BY grp WITH ROLLUP;
SELECT grp, born, COUNT(*), SUM(score) FROM users GROUP BY grp, born WITH ROLLUP;
SELECT COALESCE(grp, 'all'), AVG(score) FROM users WHERE grp IS NOT NULL GROUP BY grp WITH ROLLUP;
SELECT grp, GROUPING(grp), COUNT(*) FROM users GROUP BY grp WITH ROLLUP ORDER BY GROUPING(grp), grp; -- ordered, only mysql
SELECT state, uid, COUNT(*) FROM orders GROUP BY state, uid WITH ROLLUP HAVING COUNT(*) > 1;

-- feature: distinct
SELECT DISTINCT grp FROM users;
SELECT DISTINCT grp, score FROM users;
SELECT DISTINCT grp FROM users ORDER BY grp; -- ordered
SELECT DISTINCT grp FROM users ORDER BY grp DESC LIMIT 2; -- ordered
SELECT DISTINCT name FROM users; -- count
SELECT DISTINCT ci FROM facts; -- count
SELECT DISTINCT colour, marks FROM facts;
SELECT DISTINCT u.grp, o.state FROM users u JOIN orders o ON o.uid = u.uid;
SELECT DISTINCT uid % 2, grp IS NULL FROM users;
SELECT DISTINCT COUNT(*) FROM users GROUP BY grp;
SELECT DISTINCTROW v FROM small;
SELECT DISTINCT l.level FROM levels l JOIN users u ON u.grp = l.level;
SELECT DISTINCT score FROM users ORDER BY score LIMIT 4 OFFSET 2; -- ordered
