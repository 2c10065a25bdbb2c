# Healthy: both halves of replication run. Over TCP, as the server listens on its socket only while it initialises.
status=$(mysql --host 127.0.0.1 --user root --password="$MYSQL_ROOT_PASSWORD" --execute 'SHOW REPLICA STATUS\G' 2>/dev/null) || exit 1
case $status in *"Replica_IO_Running: Yes"*"Replica_SQL_Running: Yes"*) exit 0 ;; esac
exit 1
