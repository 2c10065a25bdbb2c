/* query.pml: one kept answer of a query over two tables on two shards (docs/cache.md): tokens, marks and keepers.
 *
 * What cache.pml has checked for one row is taken over: leases, generations, the node that loses everything.  New here: the
 * answer is read table by table, not at one moment, and nobody makes the answer itself void.  It is believed as long as
 * all its guards stand: of each table the token, of each shard the mark.
 *
 * Each table has one writer, through a proxy in strict mode or directly, and a keeper.  Versions of a table are its places
 * in its shard's binlog.  Time is not counted: a tombstone ends when what the hold-off is longer than has ended; where
 * there is no live mark, `bound` may pass at any time, and then what was written up to then is `due`.
 *
 * Asserted at each hit, for each table: strict: not older than what was acknowledged when the read began; bounded: not
 * older than what is due.
 */
#ifndef NR
#define NR 2      /* reads of each reader */
#endif
#ifndef NC
#define NC 1      /* crashes of the keepers */
#endif
#ifndef NF
#define NF 1      /* losses of the node */
#endif

byte blen[2]; byte vis[2]; byte acked[2]; bool sure[2];
byte due[2];                              /* versions that are older than the bound */
bool ttomb[2]; byte tok[2]; byte tneed[2]; byte toks;  /* the tables' tombstones, tokens, what a tombstone covers */
bool live[2]; byte mtag[2]; byte covered[2]; byte gens[2]; byte lneed[2]; bool lsure[2]; byte asked[2];
bool kept; byte val[2]; byte vtag[2]; byte vtok[2];    /* the answer, and its tag */
byte nc; byte nf;

#define GUARD(i) (live[i] && vtag[i] == mtag[i] && !ttomb[i] && tok[i] != 0 && vtok[i] == tok[i])
#ifdef MUT_ONE_TOKEN
#define BELIEVED (kept && GUARD(0) && live[1] && vtag[1] == mtag[1])
#else
#ifdef MUT_ONE_MARK
#define BELIEVED (kept && GUARD(0) && !ttomb[1] && tok[1] != 0 && vtok[1] == tok[1])
#else
#define BELIEVED (kept && GUARD(0) && GUARD(1))
#endif
#endif

#ifdef MUT_NO_HOLDOFF
#define VOID(i) atomic { ttomb[i] = 0; tok[i] = 0 }
#else
#ifdef MUT_SAME_TOKEN
#define VOID(i) atomic { ttomb[i] = 1; tneed[i] = blen[i] }
#else
#define VOID(i) atomic { ttomb[i] = 1; tok[i] = 0; tneed[i] = blen[i] }
#endif
#endif

proctype Writer(byte i) {
  bool strict;
  if :: strict = 1 :: strict = 0 fi;
#ifndef MUT_NO_FIRST
  if :: strict -> atomic { VOID(i); sure[i] = 1 } :: else fi;
#endif
  blen[i]++;
  vis[i] = blen[i];
  if
  :: strict ->
#ifndef MUT_NO_FIRST
       if :: atomic { !sure[i] -> VOID(i) } :: sure[i] -> skip fi;
#endif
       atomic { acked[i] = vis[i]; sure[i] = 0 }
  :: else
  fi
}

proctype Reader() {
  byte n; byte need0; byte need1; byte v0; byte v1; byte g0; byte g1; byte k0; byte k1; bool may;
  do
  :: n == NR -> break
  :: n < NR ->
     atomic { n++; need0 = acked[0]; need1 = acked[1]; may = 0 }
     /* one command: the entry, all marks, all tokens */
     if
     :: atomic { BELIEVED ->
          assert(val[0] >= need0 && val[1] >= need1);    /* strict */
          assert(val[0] >= due[0] && val[1] >= due[1]) } /* bounded */
     :: atomic { !BELIEVED && live[0] && live[1] && !ttomb[0] && !ttomb[1] && tok[0] != 0 && tok[1] != 0 ->
          may = 1; g0 = mtag[0]; g1 = mtag[1]; k0 = tok[0]; k1 = tok[1] }
     :: atomic { !live[0] || !live[1] || ttomb[0] || ttomb[1] -> skip }  /* reads the primaries, keeps nothing */
     :: atomic { !ttomb[0] && tok[0] == 0 -> toks++; tok[0] = toks }
     :: atomic { !ttomb[1] && tok[1] == 0 -> toks++; tok[1] = toks }
     fi;
     if
     :: may ->
        v0 = vis[0];
        v1 = vis[1];
#ifdef MUT_TOKEN_LATE
        atomic { k0 = tok[0]; k1 = tok[1] }
#endif
        atomic { kept = 1; val[0] = v0; val[1] = v1; vtag[0] = g0; vtag[1] = g1; vtok[0] = k0; vtok[1] = k1 }
     :: !may
     fi;
     atomic { v0 = 0; v1 = 0; g0 = 0; g1 = 0; k0 = 0; k1 = 0; need0 = 0; need1 = 0 }
  od
}

/* What begins anew after a crash: everything but what the node keeps. */
proctype Keeper(byte i) {
  byte pos; byte tag;
again:
  atomic {
    asked[i] = 0; tag = mtag[i];
    if :: tag != 0 -> pos = covered[i] :: else -> pos = blen[i]; lneed[i] = blen[i] fi
  }
  do
  :: atomic { pos < blen[i] -> VOID(i); pos++ }
  :: atomic { asked[i] == 0 -> asked[i] = blen[i] + 1 }
  :: atomic { asked[i] != 0 && tag != 0 && tag == mtag[i] && pos >= asked[i] - 1 ->
       if :: asked[i] - 1 > covered[i] -> covered[i] = asked[i] - 1 :: else fi;
       if :: covered[i] > due[i] -> due[i] = covered[i] :: else fi;
       live[i] = 1; asked[i] = 0 }
  :: atomic { mtag[i] == 0 && asked[i] != 0 && pos >= asked[i] - 1 && vis[i] >= lneed[i] && (!lsure[i] || !sure[i]) ->
       gens[i]++; tag = gens[i]; mtag[i] = tag; covered[i] = asked[i] - 1; live[i] = 1; lsure[i] = 0; asked[i] = 0;
       if :: covered[i] > due[i] -> due[i] = covered[i] :: else fi }
  :: atomic { mtag[i] != 0 && tag != mtag[i] -> goto again }
  :: atomic { nc < NC -> nc++; goto again }
  od
}

/* Time and trouble. */
proctype World() {
  byte i;
  do
  :: i = 1 - i
  :: sure[i] -> sure[i] = 0
  :: atomic { ttomb[i] && vis[i] >= tneed[i] && !sure[i] -> ttomb[i] = 0; tneed[i] = 0 }
#ifdef EVICT
  :: atomic { tok[i] != 0 -> tok[i] = 0 }
#endif
  :: atomic { live[i] -> live[i] = 0 }
  :: atomic { !live[i] && due[i] < blen[i] -> due[i] = blen[i]; asked[i] = 0 }  /* what was asked before is too old */
  :: atomic { kept -> kept = 0; val[0] = 0; val[1] = 0; vtag[0] = 0; vtag[1] = 0; vtok[0] = 0; vtok[1] = 0 }
  :: atomic { nf < NF -> nf++;
       kept = 0; val[0] = 0; val[1] = 0; vtag[0] = 0; vtag[1] = 0; vtok[0] = 0; vtok[1] = 0;
       live[0] = 0; live[1] = 0; mtag[0] = 0; mtag[1] = 0; covered[0] = 0; covered[1] = 0;
       ttomb[0] = 0; ttomb[1] = 0; tok[0] = 0; tok[1] = 0; tneed[0] = 0; tneed[1] = 0;
       lneed[0] = blen[0]; lneed[1] = blen[1]; lsure[0] = sure[0]; lsure[1] = sure[1] }
  od
}

init {
  atomic {
    /* The cache is in use: marks, tokens, keepers that know the generation. */
    live[0] = 1; live[1] = 1; mtag[0] = 1; mtag[1] = 1; gens[0] = 1; gens[1] = 1; tok[0] = 1; tok[1] = 2; toks = 2;
    run Keeper(0); run Keeper(1); run World(); run Writer(0); run Writer(1); run Reader();
#ifdef TWO_READERS
    run Reader();
#endif
  }
}
