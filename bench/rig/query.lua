-- sysbench: one query, given by SHARDPROXY_BENCH_QUERY, again and again.
local text = os.getenv("SHARDPROXY_BENCH_QUERY")

function thread_init()
  connection = sysbench.sql.driver():connect()
end

function event()
  connection:query(text)
end

function thread_done()
  connection:disconnect()
end

sysbench.cmdline.options = {
  tables = {"not used", 1},
  table_size = {"not used", 1},
}
