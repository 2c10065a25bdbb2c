-- databases: rng hsh
-- feature: union
SELECT uid FROM users UNION SELECT uid FROM orders;
SELECT uid FROM users UNION ALL SELECT uid FROM orders;
SELECT uid FROM users UNION ALL SELECT aid FROM audit UNION SELECT level FROM levels;
SELECT uid FROM users UNION SELECT uid FROM orders ORDER BY uid; -- ordered
SELECT uid FROM users UNION ALL SELECT uid FROM orders ORDER BY 1 DESC LIMIT 5; -- ordered
SELECT uid, grp FROM users UNION SELECT uid, v FROM small ORDER BY 1, 2; -- ordered
(SELECT uid FROM users ORDER BY uid LIMIT 3) UNION ALL (SELECT uid FROM orders ORDER BY uid DESC LIMIT 3);
(SELECT uid FROM users WHERE grp = 1) UNION (SELECT uid FROM users WHERE grp = 2) ORDER BY uid LIMIT 4 OFFSET 1; -- ordered
SELECT grp, COUNT(*) FROM users GROUP BY grp UNION ALL SELECT NULL, COUNT(*) FROM users;
SELECT uid, nick FROM users UNION SELECT oid, state FROM orders;
SELECT uid, score FROM users UNION ALL SELECT uid, total FROM orders;
SELECT uid, born FROM users UNION ALL SELECT uid, placed FROM orders;
SELECT 1 UNION SELECT 2 UNION ALL SELECT 2;
SELECT uid FROM users WHERE uid = 5 UNION SELECT uid FROM users WHERE uid = 500;
SELECT uid FROM users UNION SELECT 1 UNION SELECT 'a';
SELECT nick FROM users UNION SELECT colour FROM facts;
SELECT big FROM facts UNION SELECT score FROM users;
SELECT dbl FROM facts UNION SELECT grp FROM users;
SELECT COUNT(*) FROM (SELECT uid FROM users UNION ALL SELECT uid FROM orders) AS d;
SELECT uid FROM users WHERE uid IN (SELECT uid FROM orders UNION ALL SELECT uid FROM small);
SELECT level FROM levels UNION SELECT uid FROM marks;
SELECT l.level FROM levels l UNION ALL SELECT grp FROM users;
SELECT name FROM users UNION SELECT name FROM users; -- count
SELECT code FROM countries UNION SELECT code FROM countries ORDER BY code; -- ordered

-- feature: intersect and except
SELECT uid FROM users INTERSECT SELECT uid FROM orders;
SELECT uid FROM users EXCEPT SELECT uid FROM orders;
SELECT uid FROM orders INTERSECT ALL SELECT uid FROM facts;
SELECT uid FROM orders EXCEPT ALL SELECT uid FROM facts;
SELECT grp FROM users INTERSECT SELECT v FROM small ORDER BY 1; -- ordered
SELECT uid FROM users EXCEPT SELECT aid FROM audit UNION SELECT 77;
SELECT uid FROM users INTERSECT SELECT uid FROM orders INTERSECT SELECT uid FROM facts;
(SELECT uid FROM users EXCEPT SELECT uid FROM orders) UNION ALL SELECT 7;

-- feature: scatter
SELECT * FROM users;
SELECT uid, nick, score * 2, UPPER(nick) FROM users WHERE score > 5;
SELECT * FROM facts WHERE colour = 'red' OR marks LIKE '%x%';
SELECT * FROM users WHERE uid IN (1, 5, 500, 2000, 5000);
SELECT * FROM users WHERE uid BETWEEN 3 AND 200;
SELECT * FROM users WHERE name = 'ann' OR uid = 7;
SELECT * FROM rich;
SELECT * FROM users WHERE born BETWEEN '1955-01-01' AND '1965-12-31';
SELECT uid, CASE grp WHEN 1 THEN 'one' ELSE nick END FROM users;
SELECT JSON_EXTRACT(doc, '$.a'), doc FROM facts;
SELECT HEX(WEIGHT_STRING(name)) FROM users;
SELECT uid, DATE_FORMAT(born, '%d.%m.%y'), DATEDIFF(born, '1950-01-01') FROM users;
SELECT uid, CAST(score AS SIGNED), CONVERT(score, CHAR) FROM users;
SELECT uid REGEXP '^5', nick LIKE '_' FROM users;
TABLE small; -- only mysql
VALUES ROW(1, 'a'), ROW(2, 'b'); -- only mysql
