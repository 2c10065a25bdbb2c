# Runs once, while a replica's data folder is made: it forgets its own history and follows PRIMARY_HOST.
# Replication starts with the server. The image sources this file; it needs PRIMARY_HOST and REPLICATION_PASSWORD.
mysql --user root --password="$MYSQL_ROOT_PASSWORD" <<SQL
RESET BINARY LOGS AND GTIDS;
CHANGE REPLICATION SOURCE TO
  SOURCE_HOST = '$PRIMARY_HOST',
  SOURCE_PORT = ${PRIMARY_PORT:-3306},
  SOURCE_USER = 'replication',
  SOURCE_PASSWORD = '$REPLICATION_PASSWORD',
  SOURCE_AUTO_POSITION = 1,
  SOURCE_CONNECT_RETRY = 2,
  GET_SOURCE_PUBLIC_KEY = 1;
SQL
