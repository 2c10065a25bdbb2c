/* cache.pml: one cached row (docs/cache.md): leases, tombstones, marks and the keeper that reads the binlog.
 *
 * Two writers, each through a proxy in strict mode or directly; one binlog whose events can be read before they are
 * visible (vis <= blen); one Redis node that may lose everything; one keeper that may crash; readers of two proxies.
 * Versions of the row are its places in the binlog.  Time is not counted: what lasts a hold-off ends when everything
 * that the hold-off is longer than has ended (an event's way to visibility), and a writer that has measured less than
 * the hold-off since its tombstone is `sure`.
 *
 * -DTABLE: strict writers do not know the row, and void its table: a tombstone in place of the table's token, which is a
 * part of tags.  A token that is evicted is the same as one whose tombstone is over: there will be another.
 *
 * -DREFRESH: who finds a value may load the row anew meanwhile.  That lease is a part of the value's entry (`stamp`), so
 * whatever voids the entry voids it.  How long a value is given after its time to live is no rule here: values live as
 * long as they like.
 *
 * Asserted at each hit: strict: not older than what was acknowledged when the read began; bounded: not older than the
 * place that the live mark covers, which was the binlog's end at most `bound` ago.
 */
#ifndef NR
#define NR 1      /* reads of each reader */
#endif
#ifndef NC
#define NC 1      /* crashes of the keeper */
#endif
#ifndef NF
#define NF 1      /* losses of the node */
#endif
#define NOBODY 9

byte blen; byte vis; bool locked;
byte acked;                      /* the newest version whose write through a proxy was acknowledged */
bool sure[2];                    /* the writer's last tombstone is younger than the hold-off */

bool ttomb; byte tok; byte tbneed; byte toks; byte vtok;  /* TABLE: tombstone, token, what it covers; of VALUE: its token */
#ifdef TABLE
#define BELIEVED (live && vtag == mtag && !ttomb && tok != 0 && vtok == tok)
#define HAS_TOKEN (!ttomb && tok != 0)
#ifdef MUT_SAME_TOKEN
#define VOID atomic { ttomb = 1; tbneed = blen }
#else
#define VOID atomic { ttomb = 1; tok = 0; tbneed = blen }
#endif
#else
#define BELIEVED (live && vtag == mtag)
#define HAS_TOKEN true
#define VOID INVALIDATE
#endif

mtype = { EMPTY, VALUE, LEASE, TOMB };
mtype st = EMPTY;                /* the row's entry on the node */
byte val; byte vtag; byte token; /* of VALUE: version and generation; of LEASE: whose */
byte tneed;                      /* of TOMB: the hold-off covers events up to here */
bool live; byte mtag; byte covered;  /* the mark: not expired, generation, place; 0: no generation */
byte stamp;                      /* REFRESH: whose lease is in the VALUE, or who has filled it */
byte apart;                      /* MUT_REFRESH_APART: a lease beside the entry */
byte saved_st; byte saved_val; byte saved_vtag; byte saved_mtag; byte saved_covered; bool saved;

byte tokens; byte nc; byte nf; byte gens;
bool lost; byte lneed; bool lsure[2];    /* what a new generation waits for */

#ifdef MUT_NO_HOLDOFF
#define INVALIDATE atomic { st = EMPTY; val = 0; token = NOBODY }
#else
#define INVALIDATE atomic { st = TOMB; val = 0; token = NOBODY; tneed = blen }
#endif

proctype Writer(byte me) {
  byte mine; bool strict;
  if :: strict = 1 :: strict = 0 fi;
  if :: strict ->
       atomic { VOID; sure[me] = 1 }
     :: else fi;
  atomic { !locked -> locked = 1; blen++; mine = blen }
  atomic { vis = mine; locked = 0 }
  if
  :: strict ->
#ifndef MUT_NO_SECOND
       if :: atomic { !sure[me] -> VOID } :: sure[me] -> skip fi;
#endif
       atomic { if :: mine > acked -> acked = mine :: else fi; sure[me] = 0; mine = 0 }
  :: else
  fi
}

#ifdef MUT_REFRESH_BLIND
#define MINE (st == VALUE)
#else
#ifdef MUT_REFRESH_APART
#define MINE (st == VALUE && apart == mytoken)
#else
#define MINE (st == VALUE && stamp == mytoken)
#endif
#endif

proctype Reader() {
  byte n; byte need; byte v; byte mytoken; byte tag; byte mytok;
#ifdef REFRESH
  byte seen;
#endif
  do
  :: n == NR -> break
  :: n < NR ->
     atomic { n++; need = acked; v = 0; tag = 0 }
     /* one command: the entry and the mark */
     if
     :: atomic { st == VALUE && BELIEVED ->
          assert(val >= need);      /* strict */
          assert(val >= covered);   /* bounded */
#ifdef REFRESH
          if :: skip :: tag = mtag; mytok = tok; seen = stamp fi
        };
        if
        :: tag != 0 ->
           if
           :: atomic { st == VALUE && vtag == tag && vtok == mytok && stamp == seen -> tokens++; mytoken = tokens; stamp = mytoken; apart = mytoken };
              v = vis;
              atomic { if :: MINE -> val = v; vtag = tag; vtok = mytok :: else fi; mytoken = 0 }
           :: atomic { !(st == VALUE && vtag == tag && vtok == mytok && stamp == seen) -> skip }
           fi;
           atomic { tag = 0; mytok = 0; seen = 0 }
        :: else
        fi
#else
        }
#endif
     :: atomic { live && HAS_TOKEN && (st == EMPTY || (st == VALUE && !BELIEVED)) -> tag = mtag; mytok = tok }
     :: atomic { !live || st == LEASE || st == TOMB -> tag = 0 }   /* reads the primary, fills nothing */
#ifdef TABLE
     :: atomic { ttomb -> tag = 0 }
     :: atomic { !ttomb && tok == 0 -> tag = 0 };
        atomic { if :: !ttomb && tok == 0 -> toks++; tok = toks :: else fi }
#endif
     fi;
     if
     :: tag == 0 -> skip
     :: tag != 0 ->
        if
        :: atomic { st == EMPTY || (st == VALUE && (vtag != tag || vtok != mytok)) ->
             tokens++; mytoken = tokens; token = mytoken; st = LEASE }
        :: atomic { !(st == EMPTY || (st == VALUE && (vtag != tag || vtok != mytok))) -> mytoken = 0 }
        fi;
        if
        :: mytoken == 0 -> skip
        :: mytoken != 0 ->
           v = vis;
#ifdef MUT_NO_LEASE
           atomic { st = VALUE; val = v; vtag = tag; vtok = mytok; token = NOBODY }
#else
           atomic { if :: st == LEASE && token == mytoken -> st = VALUE; val = v; vtag = tag; vtok = mytok; stamp = mytoken; token = NOBODY :: else fi }
#endif
        fi;
        mytoken = 0; mytok = 0
     fi
  od
}

#ifdef MUT_MARK_EARLY
#define READ_SO_FAR true
#else
#define READ_SO_FAR (pos >= asked - 1)
#endif
#ifdef MUT_GEN_AT_ONCE
#define FORGOTTEN_PASSED true
#else
#define FORGOTTEN_PASSED (vis >= lneed && (!lsure[0] || !sure[0]) && (!lsure[1] || !sure[1]))
#endif

/* What begins anew after a crash: everything but what the node keeps. */
proctype Keeper() {
  byte pos; byte asked; byte tag;
again:
  atomic {
    pos = 0; asked = 0; tag = mtag;
    if
    :: mtag != 0 ->
#ifdef MUT_POS_AHEAD
       pos = blen
#else
       pos = covered
#endif
    :: else -> pos = blen; tag = 0; lneed = blen  /* what it does not read may not be visible yet */
    fi
  }
  do
  :: atomic { pos < blen -> INVALIDATE; pos++ }
  :: atomic { asked == 0 -> asked = blen + 1 }        /* the binlog's end now */
  :: atomic { asked != 0 && tag != 0 && tag == mtag && READ_SO_FAR -> if :: asked - 1 > covered -> covered = asked - 1 :: else fi; live = 1; asked = 0 }
  /* no generation on the node: a new one, when everything has passed that it has forgotten */
  :: atomic { mtag == 0 && asked != 0 && pos >= asked - 1 && FORGOTTEN_PASSED -> gens++; tag = gens; mtag = gens; covered = asked - 1; live = 1; lsure[0] = 0; lsure[1] = 0; asked = 0 }
  :: atomic { mtag != 0 && tag != mtag -> goto again }
  :: atomic { nc < NC -> nc++; goto again }
  od
}

/* Time and trouble. */
proctype World() {
  do
  :: sure[0] -> sure[0] = 0
  :: sure[1] -> sure[1] = 0
#ifdef MUT_SHORTEN
  :: atomic { st == TOMB && vis >= tneed -> st = EMPTY }
#else
  :: atomic { st == TOMB && vis >= tneed && !sure[0] && !sure[1] -> st = EMPTY; tneed = 0 }
#endif
#ifdef TABLE
  :: atomic { ttomb && vis >= tbneed && !sure[0] && !sure[1] -> ttomb = 0; tbneed = 0 }
  :: atomic { tok != 0 -> tok = 0 }
#endif
  :: atomic { st == LEASE -> st = EMPTY; token = NOBODY }
  :: atomic { st == VALUE -> st = EMPTY; val = 0; vtag = 0; vtok = 0 }
  :: atomic { live -> live = 0 }
#ifdef MUT_NO_RUN
  :: atomic { !saved -> saved = 1; saved_st = st; saved_val = val; saved_vtag = vtag; saved_mtag = mtag; saved_covered = covered }
#endif
  :: atomic { nf < NF -> nf++; live = 0; lneed = blen; lsure[0] = sure[0]; lsure[1] = sure[1]; token = NOBODY; ttomb = 0; tok = 0; vtok = 0; tbneed = 0;
#ifdef MUT_NO_RUN
       if
       :: saved -> st = saved_st; val = saved_val; vtag = saved_vtag; mtag = saved_mtag; covered = saved_covered
       :: !saved -> st = EMPTY; val = 0; vtag = 0; mtag = 0; covered = 0
       fi
#else
       st = EMPTY; val = 0; vtag = 0; mtag = 0; covered = 0
#endif
     }
  od
}

init {
  atomic { token = NOBODY; run Keeper(); run World(); run Writer(0); run Reader();
#ifndef SMALL  /* one writer, one reader */
#ifndef ONE_WRITER
    run Writer(1);
#endif
    run Reader();
#endif
  }
}
