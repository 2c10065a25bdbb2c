"""Built-in functions of MySQL 9.7 and MariaDB 10.11, by what a planner must know of them. Names are lower case.

Whatever is called and not listed here may be a stored function or a loadable one: it can read and write anything.
Source: the native function tables and grammars of the two servers.
"""

from __future__ import annotations

from shardproxy.sql.words import words

# The answer follows from the arguments (and from variables that every connection of the session has alike).
PLAIN = words("""
    abs acos add_months adddate addtime aes_decrypt aes_encrypt ascii asin atan atan2
    bin bin_to_uuid bit_count bit_length
    case cast ceil ceiling char char_length character_length charset chr coalesce coercibility collation column_add
    column_check column_create column_delete column_exists column_get column_json column_list compress concat
    concat_ws conv convert convert_tz cos cot crc32 crc32c
    database date date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear decode
    decode_histogram default degrees des_decrypt elt encode exp export_set extract extractvalue
    field find_in_set floor format format_bytes format_pico_time from_base64 from_days from_unixtime from_vector
    get_format greatest grouping
    hex hour if ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa insert instr interval
    is_ipv4 is_ipv4_compat is_ipv4_mapped is_ipv6 is_uuid isnull
    json_array json_array_append json_array_insert json_array_intersect json_compact json_contains
    json_contains_path json_depth json_detailed json_equals json_exists json_extract json_insert json_keys
    json_length json_loose json_merge json_merge_patch json_merge_preserve json_normalize json_object
    json_object_filter_keys json_object_to_array json_overlaps json_pretty json_query json_quote json_remove
    json_replace json_schema_valid json_schema_validation_report json_search json_set json_storage_free
    json_storage_size json_type json_unquote json_valid json_value
    last_day lcase least left length lengthb ln locate log log10 log2 lower lpad ltrim
    make_set makedate maketime match microsecond mid minute mod month monthname
    name_const natural_sort_key nullif nvl nvl2
    oct octet_length old_password ord
    password period_add period_diff pi position pow power
    quarter quote radians regexp_instr regexp_like regexp_replace regexp_substr repeat replace reverse right round
    row rpad rtrim schema sec_to_time second sformat sha sha1 sha2 md5 sign sin soundex space sqrt
    statement_digest statement_digest_text str_to_date strcmp string_to_vector subdate substr substring
    substring_index subtime
    tan time time_format time_to_sec timediff timestamp timestampadd timestampdiff to_base64 to_char to_days
    to_seconds to_vector trim truncate
    ucase uncompress uncompressed_length unhex updatexml upper uuid_to_bin
    validate_password_strength value values vector_dim vector_distance vector_to_string vec_distance
    vec_distance_cosine vec_distance_euclidean vec_fromtext vec_totext
    week weekday weekofyear weight_string year yearweek
    geometrycollection linestring multilinestring multipoint multipolygon point polygon
    area asbinary astext aswkb aswkt boundary buffer centroid contains convexhull crosses dimension disjoint
    distance_sphere endpoint envelope equals exteriorring geomcollfromtext geomcollfromwkb
    geometrycollectionfromtext geometrycollectionfromwkb geometryfromtext geometryfromwkb geometryn geometrytype
    geomfromtext geomfromwkb glength interiorringn intersects isclosed isempty isring issimple linefromtext
    linefromwkb linestringfromtext linestringfromwkb mlinefromtext mlinefromwkb mpointfromtext mpointfromwkb
    mpolyfromtext mpolyfromwkb multilinestringfromtext multilinestringfromwkb multipointfromtext
    multipointfromwkb multipolygonfromtext multipolygonfromwkb numgeometries numinteriorrings numpoints overlaps
    pointfromtext pointfromwkb pointn pointonsurface polyfromtext polyfromwkb polygonfromtext polygonfromwkb srid
    startpoint touches within x y
    mbrcontains mbrcoveredby mbrcovers mbrdisjoint mbrequal mbrequals mbrintersects mbroverlaps mbrtouches mbrwithin
    st_area st_asbinary st_asgeojson st_astext st_aswkb st_aswkt st_boundary st_buffer st_buffer_strategy
    st_centroid st_contains st_convexhull st_crosses st_difference st_dimension st_disjoint st_distance
    st_distance_sphere st_endpoint st_envelope st_equals st_exteriorring st_frechetdistance st_geohash
    st_geomcollfromtext st_geomcollfromtxt st_geomcollfromwkb st_geometrycollectionfromtext
    st_geometrycollectionfromwkb st_geometryfromtext st_geometryfromwkb st_geometryn st_geometrytype
    st_geomfromgeojson st_geomfromtext st_geomfromwkb st_hausdorffdistance st_interiorringn st_intersection
    st_intersects st_isclosed st_isempty st_isring st_issimple st_isvalid st_latfromgeohash st_latitude st_length
    st_linefromtext st_linefromwkb st_lineinterpolatepoint st_lineinterpolatepoints st_linestringfromtext
    st_linestringfromwkb st_longfromgeohash st_longitude st_makeenvelope st_mlinefromtext st_mlinefromwkb
    st_mpointfromtext st_mpointfromwkb st_mpolyfromtext st_mpolyfromwkb st_multilinestringfromtext
    st_multilinestringfromwkb st_multipointfromtext st_multipointfromwkb st_multipolygonfromtext
    st_multipolygonfromwkb st_numgeometries st_numinteriorring st_numinteriorrings st_numpoints st_overlaps
    st_pointatdistance st_pointfromgeohash st_pointfromtext st_pointfromwkb st_pointn st_pointonsurface
    st_polyfromtext st_polyfromwkb st_polygonfromtext st_polygonfromwkb st_relate st_simplify st_srid
    st_startpoint st_swapxy st_symdifference st_touches st_transform st_union st_validate st_within st_x st_y
""")

# The time at which the statement began: `SET timestamp` makes servers agree. Several are also written without ( ).
CLOCK = words("""
    curdate current_date current_time current_timestamp curtime localtime localtimestamp now unix_timestamp
    utc_date utc_time utc_timestamp
""")
CLOCK_WORDS = words("""
    current_date current_time current_timestamp localtime localtimestamp utc_date utc_time utc_timestamp
""")

# Another answer each time, per row; any server's is as good.
RANDOM = words("encrypt des_encrypt rand random_bytes sys_guid sysdate uuid uuid_short uuid_v4 uuid_v7")

# State of the session.
SESSION = words("""
    connection_id current_role current_user found_rows last_insert_id row_count session_user system_user user
""")

# Locks by name, held by one connection.
LOCKS = words("get_lock is_free_lock is_used_lock release_all_locks release_lock")

# State of one server.
SERVER = words("""
    benchmark binlog_gtid_pos gtid_subset gtid_subtract icu_version lastval load_file master_gtid_wait master_pos_wait
    nextval ps_current_thread_id ps_thread_id roles_graphml rownum setval sleep source_pos_wait version
    wait_for_executed_gtid_set wait_until_sql_thread_after_gtids wsrep_last_seen_gtid wsrep_last_written_gtid
    wsrep_sync_wait_upto_gtid
""")

# Sequences of one server: the same number would come from every shard.
SEQUENCES = words("nextval lastval setval")

# One row out of many.
AGGREGATES = words("""
    any_value avg bit_and bit_or bit_xor count group_concat json_arrayagg json_objectagg max median min
    percentile_cont percentile_disc st_collect std stddev stddev_pop stddev_samp sum var_pop var_samp variance
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
""")

BUILT_IN = PLAIN | CLOCK | RANDOM | SESSION | LOCKS | SERVER | AGGREGATES

# Words that a ( may follow without being called.
NOT_CALLED = (
    words("""
    accessible add after algorithm all alter always analyze and any array as asc before between by bigint binary bit
    blob both bool boolean
    call cascade change char character check collate column columns comment constraint create cross cube cycle
    data decimal dec default delayed delete desc describe distinct distinctrow div double drop duplicate
    each else elseif enclosed end engine enum escape escaped except exists exit explain
    fetch fields first fixed float float4 float8 for force foreign from full fulltext generated group
    having high_priority
    ignore in index infile inner inout int int1 int2 int3 int4 int8 integer intersect into invisible is
    join json_table key keys last lateral leading like limit linear lines list lock long longblob longtext low_priority
    match_recognize maxvalue mediumblob mediumint mediumtext memory merge middleint minus modify
    national natural nchar nested next not null numeric nvarchar
    offset on only optimize option or order ordinality out outer outfile over
    partition path persistent precision primary procedure prune purge quick
    range read real recursive references regexp release rename require reset restrict return returning revoke rlike
    rows select separator serial set share shared show signed skip smallint some spatial sql sql_big_result
    sql_buffer_result sql_cache sql_calc_found_rows sql_no_cache sql_small_result starting stored straight_join
    subpartition table tables temporary terminated text then tinyblob tinyint tinytext to trailing trigger
    union unique unlock unsigned update use using
    varbinary varchar varying view virtual visible when where window with write xor zerofill
    against member of rollup sounds system_time temptable engine_attribute hash vector json
""")
    - BUILT_IN
)

# Reserved on both servers: unquoted and not after a dot, never the name of a table or column. Lower case.
RESERVED = words("""
    accessible add all alter analyze and as asc asensitive before between bigint binary blob both by call cascade case
    change char character check collate column condition constraint continue convert create cross current_date
    current_time current_timestamp current_user cursor database databases day_hour day_microsecond day_minute
    day_second dec decimal declare default delayed delete desc describe deterministic distinct distinctrow div double
    drop dual each else elseif enclosed escaped exists exit explain false fetch float float4 float8 for force foreign
    from fulltext grant group having high_priority hour_microsecond hour_minute hour_second if ignore in index infile
    inner inout insensitive insert int int1 int2 int3 int4 int8 integer interval into is iterate join key keys kill
    leading leave left like limit linear lines load localtime localtimestamp lock long longblob longtext loop
    low_priority match maxvalue mediumblob mediumint mediumtext middleint minute_microsecond minute_second mod modifies
    natural not no_write_to_binlog null numeric on optimize option optionally or order out outer outfile partition
    precision primary procedure purge range read reads read_write real references regexp release rename repeat replace
    require resignal restrict return revoke right rlike schema schemas second_microsecond select sensitive separator
    set show signal smallint spatial specific sql sqlexception sqlstate sqlwarning sql_big_result sql_calc_found_rows
    sql_small_result ssl starting straight_join table terminated then tinyblob tinyint tinytext to trailing trigger
    true undo union unique unlock unsigned update usage use using utc_date utc_time utc_timestamp values varbinary
    varchar varcharacter varying when where while with write xor year_month zerofill
""")
