/* kinds.pml: a table gets another key: two streams, of different sources, write rows of one table to one target.
 *
 * Two rows whose new key is the target's.  By the old key, which counts until the switch, a row belongs to source 0 or 1; an
 * update of that column takes it from one to the other: a transaction on both shards, whose commits come one after the
 * other.  A stream applies one, all, or some of its source's transactions at once (deletions first, then insertions, all or
 * nothing), and tries again when a row stands in the way of one that comes.  Copies: copy.pml; here a stream's next row is
 * copied at a place up to which all is applied.
 */
#ifndef NU
#define NU 3                 /* updates of the old key */
#endif
#define NR 2
#define MOST 8

/* an event: which row, what was there before and is there now; 0: no row; else its version */
typedef Log { byte r[MOST]; byte old[MOST]; byte now[MOST]; byte n; byte pos };
Log lg[2];
byte rows[4];                /* [2 * source + row]: version; 0: not there */
byte at[2];                  /* [row]: the source to which it belongs when no update is under way */
bool busy[2];                /* [row]: an update has its locks */
byte tgt[2]; byte from[2];   /* at the target: version, and whose */
byte copied[2];              /* rows below are copied, by each stream */
byte failed[2];              /* batches that have failed since anything has changed: a bit for each end */
byte nu; byte ver = 2; byte ended;
#define LEFT(s) (((1 << lg[s].n) - 1) & ~((1 << lg[s].pos) - 1) & ~failed[s])

inline commit(zs, zr, zold, znow) {
  lg[zs].r[lg[zs].n] = zr; lg[zs].old[lg[zs].n] = zold; lg[zs].now[lg[zs].n] = znow; lg[zs].n++;
  rows[2 * (zs) + zr] = znow; failed[0] = 0; failed[1] = 0
}

init { atomic { rows[0] = 1; rows[3] = 2; at[1] = 1; run Update(); run Update(); run Stream(0); run Stream(1); run Ended() } }

proctype Update() {
  byte r; byte s; byte v;
end:
  do
  :: atomic { nu < NU -> nu++; if :: r = 0 :: r = 1 fi }
     if
     :: atomic { !busy[r] -> busy[r] = 1; s = at[r]; ver++; v = ver }
        if
        :: true -> atomic { commit(s, r, rows[2*s+r], 0) }; atomic { commit(1 - s, r, 0, v) }
#ifdef ANY_ORDER             /* the shard that gets the row may be the one that decides */
        :: true -> atomic { commit(1 - s, r, 0, v) }; atomic { commit(s, r, rows[2*s+r], 0) }
#endif
        :: true -> atomic { commit(s, r, rows[2*s+r], v) }; s = 1 - s        /* another column */
        fi;
        atomic { at[r] = 1 - s; busy[r] = 0; s = 0; v = 0; r = 0 }
     fi
  od
}

#ifdef MUT_IGNORE            /* a row that stands in the way stays */
#define CHANGES(r) (b[r] != 0 || a[r] != 0 && tgt[r] == 0)
#else
#define CHANGES(r) (b[r] != 0 || a[r] != 0)
#endif

/* what a batch, from the stream's position to `to`, makes of each row */
proctype Stream(byte s) {
  byte to; byte i; byte b[2]; byte a[2]; bool some[2]; bool good; byte r;
end:
  do
  :: atomic { lg[s].pos < lg[s].n && LEFT(s) != 0 ->
       if :: to = lg[s].pos + 1 :: to = lg[s].n fi;              /* one, or all; others when these have failed */
       if :: (LEFT(s) & (1 << (to - 1))) :: else -> to = lg[s].pos + 1 fi;
       do :: !(LEFT(s) & (1 << (to - 1))) -> to++ :: else -> break od;
       i = lg[s].pos;
       do
       :: i < to ->
          r = lg[s].r[i];
          if
          :: r >= copied[s] -> skip                                        /* it comes with the copy */
          :: r < copied[s] && !some[r] -> some[r] = 1; b[r] = lg[s].old[i]; a[r] = lg[s].now[i]
          :: r < copied[s] && some[r] -> a[r] = lg[s].now[i]
          fi;
          i++
       :: else -> break
       od;
       good = 1; r = 0;
       do
       :: r < NR ->
          if
          :: some[r] && b[r] != 0 -> assert(tgt[r] == b[r] && from[r] == s)
          :: some[r] && b[r] == 0 && a[r] != 0 && tgt[r] != 0 -> good = 0           /* 1062 */
          :: else
          fi;
          r++
       :: else -> break
       od;
       r = 0;
#if defined(MUT_REPLACE) || defined(MUT_IGNORE)
       good = 1;
#endif
       do
       :: r < NR && good ->
          if
          :: some[r] && CHANGES(r) -> tgt[r] = a[r]; from[r] = (a[r] != 0 -> s : 0)
          :: else
          fi;
          r++
       :: else -> break
       od;
       if :: good -> lg[s].pos = to; failed[0] = 0; failed[1] = 0 :: else -> failed[s] = failed[s] | (1 << (to - 1)) fi;
       to = 0; i = 0; r = 0; good = 0; b[0] = 0; b[1] = 0; a[0] = 0; a[1] = 0; some[0] = 0; some[1] = 0 }
  :: atomic { copied[s] < NR && lg[s].pos == lg[s].n && (rows[2*s+copied[s]] == 0 || tgt[copied[s]] == 0) ->
       if
       :: rows[2*s+copied[s]] != 0 -> tgt[copied[s]] = rows[2*s+copied[s]]; from[copied[s]] = s
       :: else
       fi;
       copied[s]++; failed[0] = 0; failed[1] = 0 }
  od
}

/* nobody writes any more: the streams must come to their ends */
proctype Ended() {
  do
  :: atomic { nu == NU && !busy[0] && !busy[1] && lg[0].pos == lg[0].n && lg[1].pos == lg[1].n && copied[0] == NR && copied[1] == NR ->
       assert(tgt[0] == rows[0] + rows[2]); assert(tgt[1] == rows[1] + rows[3]); ended = 1; break }
  od
}
