# Runs once, while a primary's data folder is made: accounts of replicas and proxy, the database and its tables.
# The image sources this file; it needs REPLICATION_PASSWORD and PROXY_PASSWORD.
mysql --user root --password="$MYSQL_ROOT_PASSWORD" <<SQL
CREATE USER IF NOT EXISTS 'replication'@'%' IDENTIFIED BY '$REPLICATION_PASSWORD';
GRANT REPLICATION SLAVE ON *.* TO 'replication'@'%';

CREATE USER IF NOT EXISTS 'shardproxy'@'%' IDENTIFIED BY '$PROXY_PASSWORD';
GRANT REPLICATION CLIENT, PROCESS, XA_RECOVER_ADMIN ON *.* TO 'shardproxy'@'%';
GRANT SELECT ON performance_schema.* TO 'shardproxy'@'%';
GRANT ALL PRIVILEGES ON main.* TO 'shardproxy'@'%';
GRANT ALL PRIVILEGES ON \`\\_shardproxy\`.* TO 'shardproxy'@'%';

CREATE DATABASE IF NOT EXISTS main CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci;
CREATE TABLE IF NOT EXISTS main.users (
  uid BIGINT UNSIGNED NOT NULL,
  name VARCHAR(100) NOT NULL,
  country CHAR(2) NOT NULL,
  PRIMARY KEY (uid)
);
CREATE TABLE IF NOT EXISTS main.orders (
  uid BIGINT UNSIGNED NOT NULL,
  id BIGINT UNSIGNED NOT NULL,
  total DECIMAL(10, 2) NOT NULL,
  PRIMARY KEY (uid, id)
);
CREATE TABLE IF NOT EXISTS main.countries (
  code CHAR(2) NOT NULL,
  name VARCHAR(100) NOT NULL,
  PRIMARY KEY (code)
);
SQL
