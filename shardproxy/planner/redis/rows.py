"""The commands of Redis 7.0 and what Redis 7.2 and Valkey 9 have beside them, by who answers them.

A line: name, number of arguments as COMMAND has it (the least that any of these servers wants), w for what may write,
places of the keys as COMMAND has them (first, last, step; - for none), then the finder, the join and marks.
"""

from __future__ import annotations

KEYED = """
# strings
APPEND                  3 w 1 1 1
DECR                    2 w 1 1 1
DECRBY                  3 w 1 1 1
DELIFEQ                 3 w 1 1 1
GET                     2 r 1 1 1
GETDEL                  2 w 1 1 1
GETEX                  -2 w 1 1 1
GETRANGE                4 r 1 1 1
GETSET                  3 w 1 1 1
INCR                    2 w 1 1 1
INCRBY                  3 w 1 1 1
INCRBYFLOAT             3 w 1 1 1
LCS                    -3 r 1 2 1
MSETEX                 -4 w -      pairs
MSETNX                 -3 w 1 -1 2
PSETEX                  4 w 1 1 1
SET                    -3 w 1 1 1
SETEX                   4 w 1 1 1
SETNX                   3 w 1 1 1
SETRANGE                4 w 1 1 1
STRLEN                  2 r 1 1 1
SUBSTR                  4 r 1 1 1
# bitmaps
BITCOUNT               -2 r 1 1 1
BITFIELD               -2 w 1 1 1
BITFIELD_RO            -2 r 1 1 1
BITOP                  -4 w 2 -1 1
BITPOS                 -3 r 1 1 1
GETBIT                  3 r 1 1 1
SETBIT                  4 w 1 1 1
# hashes
HDEL                   -3 w 1 1 1
HEXISTS                 3 r 1 1 1
HEXPIRE                -6 w 1 1 1
HEXPIREAT              -6 w 1 1 1
HEXPIRETIME            -5 r 1 1 1
HGET                    3 r 1 1 1
HGETALL                 2 r 1 1 1
HGETDEL                -5 w 1 1 1
HGETEX                 -5 w 1 1 1
HINCRBY                 4 w 1 1 1
HINCRBYFLOAT            4 w 1 1 1
HKEYS                   2 r 1 1 1
HLEN                    2 r 1 1 1
HMGET                  -3 r 1 1 1
HMSET                  -4 w 1 1 1
HPERSIST               -5 w 1 1 1
HPEXPIRE               -6 w 1 1 1
HPEXPIREAT             -6 w 1 1 1
HPEXPIRETIME           -5 r 1 1 1
HPTTL                  -5 r 1 1 1
HRANDFIELD             -2 r 1 1 1
HSCAN                  -3 r 1 1 1
HSET                   -4 w 1 1 1
HSETEX                 -6 w 1 1 1
HSETNX                  4 w 1 1 1
HSTRLEN                 3 r 1 1 1
HTTL                   -5 r 1 1 1
HVALS                   2 r 1 1 1
# lists
LINDEX                  3 r 1 1 1
LINSERT                 5 w 1 1 1
LLEN                    2 r 1 1 1
LMOVE                   5 w 1 2 1
LMPOP                  -4 w -      counted1
LPOP                   -2 w 1 1 1
LPOS                   -3 r 1 1 1
LPUSH                  -3 w 1 1 1
LPUSHX                 -3 w 1 1 1
LRANGE                  4 r 1 1 1
LREM                    4 w 1 1 1
LSET                    4 w 1 1 1
LTRIM                   4 w 1 1 1
RPOP                   -2 w 1 1 1
RPOPLPUSH               3 w 1 2 1
RPUSH                  -3 w 1 1 1
RPUSHX                 -3 w 1 1 1
# sets
SADD                   -3 w 1 1 1
SCARD                   2 r 1 1 1
SDIFF                  -2 r 1 -1 1
SDIFFSTORE             -3 w 1 -1 1
SINTER                 -2 r 1 -1 1
SINTERCARD             -3 r -      counted1
SINTERSTORE            -3 w 1 -1 1
SISMEMBER               3 r 1 1 1
SMEMBERS                2 r 1 1 1
SMISMEMBER             -3 r 1 1 1
SMOVE                   4 w 1 2 1
SPOP                   -2 w 1 1 1
SRANDMEMBER            -2 r 1 1 1
SREM                   -3 w 1 1 1
SSCAN                  -3 r 1 1 1
SUNION                 -2 r 1 -1 1
SUNIONSTORE            -3 w 1 -1 1
# sorted sets
ZADD                   -4 w 1 1 1
ZCARD                   2 r 1 1 1
ZCOUNT                  4 r 1 1 1
ZDIFF                  -3 r -      counted1
ZDIFFSTORE             -4 w 1 1 1  stored
ZINCRBY                 4 w 1 1 1
ZINTER                 -3 r -      counted1
ZINTERCARD             -3 r -      counted1
ZINTERSTORE            -4 w 1 1 1  stored
ZLEXCOUNT               4 r 1 1 1
ZMPOP                  -4 w -      counted1
ZMSCORE                -3 r 1 1 1
ZPOPMAX                -2 w 1 1 1
ZPOPMIN                -2 w 1 1 1
ZRANDMEMBER            -2 r 1 1 1
ZRANGE                 -4 r 1 1 1
ZRANGEBYLEX            -4 r 1 1 1
ZRANGEBYSCORE          -4 r 1 1 1
ZRANGESTORE            -5 w 1 2 1
ZRANK                  -3 r 1 1 1
ZREM                   -3 w 1 1 1
ZREMRANGEBYLEX          4 w 1 1 1
ZREMRANGEBYRANK         4 w 1 1 1
ZREMRANGEBYSCORE        4 w 1 1 1
ZREVRANGE              -4 r 1 1 1
ZREVRANGEBYLEX         -4 r 1 1 1
ZREVRANGEBYSCORE       -4 r 1 1 1
ZREVRANK               -3 r 1 1 1
ZSCAN                  -3 r 1 1 1
ZSCORE                  3 r 1 1 1
ZUNION                 -3 r -      counted1
ZUNIONSTORE            -4 w 1 1 1  stored
# streams
XACK                   -4 w 1 1 1
XADD                   -5 w 1 1 1
XAUTOCLAIM             -6 w 1 1 1
XCLAIM                 -6 w 1 1 1
XDEL                   -3 w 1 1 1
XGROUP|CREATE          -5 w 2 2 1
XGROUP|CREATECONSUMER   5 w 2 2 1
XGROUP|DELCONSUMER      5 w 2 2 1
XGROUP|DESTROY          4 w 2 2 1
XGROUP|SETID           -5 w 2 2 1
XINFO|CONSUMERS         4 r 2 2 1
XINFO|GROUPS            3 r 2 2 1
XINFO|STREAM           -3 r 2 2 1
XLEN                    2 r 1 1 1
XPENDING               -3 r 1 1 1
XRANGE                 -4 r 1 1 1
XREAD                  -4 r -      streams
XREADGROUP             -7 w -      streams
XREVRANGE              -4 r 1 1 1
XSETID                 -3 w 1 1 1
XTRIM                  -4 w 1 1 1
# geo
GEOADD                 -5 w 1 1 1
GEODIST                -4 r 1 1 1
GEOHASH                -2 r 1 1 1
GEOPOS                 -2 r 1 1 1
GEORADIUS              -6 w 1 1 1  radius
GEORADIUSBYMEMBER      -5 w 1 1 1  radius
GEORADIUSBYMEMBER_RO   -5 r 1 1 1
GEORADIUS_RO           -6 r 1 1 1
GEOSEARCH              -7 r 1 1 1
GEOSEARCHSTORE         -8 w 1 2 1
# HyperLogLog
PFADD                  -2 w 1 1 1
PFCOUNT                -2 r 1 -1 1
PFMERGE                -2 w 1 -1 1
# any type
COPY                   -3 w 1 2 1
DUMP                    2 r 1 1 1
EXPIRE                 -3 w 1 1 1
EXPIREAT               -3 w 1 1 1
EXPIRETIME              2 r 1 1 1
MEMORY|USAGE           -3 r 2 2 1
OBJECT|ENCODING         3 r 2 2 1
OBJECT|FREQ             3 r 2 2 1
OBJECT|IDLETIME         3 r 2 2 1
OBJECT|REFCOUNT         3 r 2 2 1
PERSIST                 2 w 1 1 1
PEXPIRE                -3 w 1 1 1
PEXPIREAT              -3 w 1 1 1
PEXPIRETIME             2 r 1 1 1
PTTL                    2 r 1 1 1
RENAME                  3 w 1 2 1
RENAMENX                3 w 1 2 1
RESTORE                -4 w 1 1 1
SORT                   -2 w 1 1 1  sort
SORT_RO                -2 r 1 1 1
TTL                     2 r 1 1 1
TYPE                    2 r 1 1 1
# scripts
EVAL                   -3 w -      counted2
EVALSHA                -3 w -      counted2
EVALSHA_RO             -3 r -      counted2
EVAL_RO                -3 r -      counted2
FCALL                  -3 w -      counted2
FCALL_RO               -3 r -      counted2
# channels
PUBLISH                 3 w 1 1 1  channels
SPUBLISH                3 w 1 1 1  channels
"""

SPLIT = """
DEL                    -2 w 1 -1 1 sum
EXISTS                 -2 r 1 -1 1 sum
MGET                   -2 r 1 -1 1 list
MSET                   -3 w 1 -1 2 ok
TOUCH                  -2 r 1 -1 1 sum
UNLINK                 -2 w 1 -1 1 sum
"""

EVERY = """
BGREWRITEAOF            1 r -      same
BGSAVE                 -1 r -      same
CONFIG|RESETSTAT        2 r -      ok
CONFIG|REWRITE          2 r -      ok
CONFIG|SET             -4 r -      ok
DBSIZE                  1 r -      sum
FLUSHALL               -1 w -      ok
FLUSHDB                -1 w -      ok
FUNCTION|DELETE         3 w -      ok
FUNCTION|FLUSH         -2 w -      ok
FUNCTION|KILL           2 r -      stopped
FUNCTION|LOAD          -3 w -      same
FUNCTION|RESTORE       -3 w -      ok
INFO                   -1 r -      info
KEYS                    2 r -      concat
LASTSAVE                1 r -      min
LATENCY|RESET          -2 r -      sum
MEMORY|PURGE            2 r -      ok
PUBSUB|CHANNELS        -2 r -      union
PUBSUB|NUMPAT           2 r -      max
PUBSUB|NUMSUB          -2 r -      sum_pairs
PUBSUB|SHARDCHANNELS   -2 r -      union
PUBSUB|SHARDNUMSUB     -2 r -      sum_pairs
RANDOMKEY               1 r -      found
SAVE                    1 r -      ok
SCAN                   -2 r -      cursor
SCRIPT|EXISTS          -3 r -      min_list
SCRIPT|FLUSH           -2 r -      ok
SCRIPT|KILL             2 r -      stopped
SCRIPT|LOAD             3 r -      same
SLOWLOG|GET            -2 r -      slowlog
SLOWLOG|LEN             2 r -      sum
SLOWLOG|RESET           2 r -      ok
COMMANDLOG|GET          4 r -      slowlog
COMMANDLOG|LEN          3 r -      sum
COMMANDLOG|RESET        3 r -      ok
WAIT                    3 r -      min blocks
WAITAOF                 4 r -      min_list blocks
"""

ANY = """
ACL                    -2 r -
ACL|CAT                -2 r -
ACL|GENPASS            -2 r -
ACL|HELP                2 r -
CLIENT                 -2 r -
CLIENT|HELP             2 r -
COMMAND                -1 r -
COMMANDLOG             -2 r -
COMMANDLOG|HELP         2 r -
COMMAND|COUNT           2 r -
COMMAND|DOCS           -2 r -
COMMAND|GETKEYS        -3 r -
COMMAND|GETKEYSANDFLAGS -3 r -
COMMAND|HELP            2 r -
COMMAND|INFO           -2 r -
COMMAND|LIST           -2 r -
CONFIG                 -2 r -
CONFIG|GET             -3 r -
CONFIG|HELP             2 r -
FUNCTION               -2 r -
FUNCTION|DUMP           2 r -
FUNCTION|HELP           2 r -
FUNCTION|LIST          -2 r -
LATENCY                -2 r -
LATENCY|HELP            2 r -
LOLWUT                 -1 r -
MEMORY                 -2 r -
MEMORY|HELP             2 r -
MODULE                 -2 r -
MODULE|HELP             2 r -
MODULE|LIST             2 r -
OBJECT                 -2 r -
OBJECT|HELP             2 r -
PUBSUB                 -2 r -
PUBSUB|HELP             2 r -
SCRIPT                 -2 r -
SCRIPT|HELP             2 r -
SCRIPT|SHOW             3 r -
SLOWLOG                -2 r -
SLOWLOG|HELP            2 r -
TIME                    1 r -
XGROUP                 -2 r -
XGROUP|HELP             2 r -
XINFO                  -2 r -
XINFO|HELP              2 r -
"""

LOCAL = """
ACL|WHOAMI              2 r -
AUTH                   -2 r -
CLIENT|CAPA            -3 r -
CLIENT|GETNAME          2 r -
CLIENT|ID               2 r -
CLIENT|INFO             2 r -
CLIENT|KILL            -3 r -
CLIENT|LIST            -2 r -
CLIENT|NO-EVICT         3 r -
CLIENT|REPLY            3 r -
CLIENT|SETINFO          4 r -
CLIENT|SETNAME          3 r -
ECHO                    2 r -
HELLO                  -1 r -
PING                   -1 r -
QUIT                   -1 r -
RESET                   1 r -
SELECT                  2 r -
"""

OWN = """
BLMOVE                  6 w 1 2 1  blocks
BLMPOP                 -5 w -      counted2 blocks
BLPOP                  -3 w 1 -2 1 blocks
BRPOP                  -3 w 1 -2 1 blocks
BRPOPLPUSH              4 w 1 2 1  blocks
BZMPOP                 -5 w -      counted2 blocks
BZPOPMAX               -3 w 1 -2 1 blocks
BZPOPMIN               -3 w 1 -2 1 blocks
CLIENT|UNBLOCK         -3 r -
DISCARD                 1 r -
EXEC                    1 r -
MONITOR                 1 r -
MULTI                   1 r -
PSUBSCRIBE             -2 r -
PUNSUBSCRIBE           -1 r -
SSUBSCRIBE             -2 r 1 -1 1 channels
SUBSCRIBE              -2 r 1 -1 1 channels
SUNSUBSCRIBE           -1 r 1 -1 1 channels
UNSUBSCRIBE            -1 r 1 -1 1 channels
UNWATCH                 1 r -
WATCH                  -2 r 1 -1 1
"""

REFUSED = {
    "clients need no slots here: connect without cluster mode; `shardctl rebalance` moves keys": """
CLUSTER                -2 r -
CLUSTERSCAN            -2 r 1 1 1
CLUSTER|ADDSLOTS       -3 r -
CLUSTER|ADDSLOTSRANGE  -4 r -
CLUSTER|BUMPEPOCH       2 r -
CLUSTER|CANCELSLOTMIGRATIONS  2 r -
CLUSTER|COUNT-FAILURE-REPORTS  3 r -
CLUSTER|COUNTKEYSINSLOT  3 r -
CLUSTER|DELSLOTS       -3 r -
CLUSTER|DELSLOTSRANGE  -4 r -
CLUSTER|FAILOVER       -2 r -
CLUSTER|FLUSHSLOT      -3 w -
CLUSTER|FLUSHSLOTS      2 r -
CLUSTER|FORGET          3 r -
CLUSTER|GETKEYSINSLOT   4 r -
CLUSTER|GETSLOTMIGRATIONS  2 r -
CLUSTER|HELP            2 r -
CLUSTER|INFO            2 r -
CLUSTER|KEYSLOT         3 r -
CLUSTER|LINKS           2 r -
CLUSTER|MEET           -4 r -
CLUSTER|MIGRATESLOTS   -4 r -
CLUSTER|MYID            2 r -
CLUSTER|MYSHARDID       2 r -
CLUSTER|NODES           2 r -
CLUSTER|REPLICAS        3 r -
CLUSTER|REPLICATE      -3 r -
CLUSTER|RESET          -2 r -
CLUSTER|SAVECONFIG      2 r -
CLUSTER|SET-CONFIG-EPOCH  3 r -
CLUSTER|SETSLOT        -4 r -
CLUSTER|SHARDS          2 r -
CLUSTER|SLAVES          3 r -
CLUSTER|SLOT-STATS     -4 r -
CLUSTER|SLOTS           2 r -
CLUSTER|SYNCSLOTS      -3 r -
ASKING                  1 r -
READONLY                1 r -
READWRITE               1 r -
""",
    "users are those of the proxy's configuration, [redis.users]": """
ACL|DELUSER            -3 r -
ACL|DRYRUN             -4 r -
ACL|GETUSER             3 r -
ACL|LIST                2 r -
ACL|LOAD                2 r -
ACL|LOG                -2 r -
ACL|SAVE                2 r -
ACL|SETUSER            -3 r -
ACL|USERS               2 r -
""",
    "replication is each node's own: speak to the node": """
REPLICAOF               3 r -
SLAVEOF                 3 r -
FAILOVER               -1 r -
REPLCONF               -1 r -
PSYNC                  -3 r -
SYNC                    1 r -
ROLE                    1 r -
""",
    "it tells of one server only: ask the node": """
LATENCY|DOCTOR          2 r -
LATENCY|GRAPH           3 r -
LATENCY|HISTOGRAM      -2 r -
LATENCY|HISTORY         3 r -
LATENCY|LATEST          2 r -
MEMORY|DOCTOR           2 r -
MEMORY|MALLOC-STATS     2 r -
MEMORY|STATS            2 r -
FUNCTION|STATS          2 r -
""",
    "it works on one server only: speak to the node": """
DEBUG                  -2 r -
PFDEBUG                 3 w 2 2 1
PFSELFTEST              1 r -
SCRIPT|DEBUG           -3 r -
SHUTDOWN               -1 r -
MODULE|LOAD            -3 r -
MODULE|LOADEX          -3 r -
MODULE|UNLOAD           3 r -
""",
    "keys are moved between nodes by `shardctl rebalance`; DUMP and RESTORE copy one": """
MIGRATE                -6 w 3 3 1
RESTORE-ASKING         -4 w 1 1 1
""",
    "there is one database, 0": """
MOVE                    3 w 1 1 1
SWAPDB                  3 w -
""",
    "client-side caching by invalidation messages is not there yet": """
CLIENT|CACHING          3 r -
CLIENT|GETREDIR         2 r -
CLIENT|TRACKING        -3 r -
CLIENT|TRACKINGINFO     2 r -
""",
    "it would hold back the clients of one worker process only": """
CLIENT|PAUSE           -3 r -
CLIENT|UNPAUSE          2 r -
""",
    "its effect is on one connection to one node, which clients share here": """
CLIENT|IMPORT-SOURCE    3 r -
CLIENT|NO-TOUCH         3 r -
""",
}
