/* cutover.pml: fence, map, proxies, streams, switch, cancel, complete and reverse (section 8).
 *
 * One moving row (a set of bits, one for each write), source S = 0, target T = 1.  Two proxies with one session each;
 * any of them may stop at any step for any time and go on with the map it has.  An orchestrator that may crash between
 * any two steps; what it was about to do may still happen much later (a stopped old instance).  Commit is two steps:
 * the binlog event can be read, then the row is visible and locks are released.
 */
#ifndef W0
#define W0 2                 /* writes by the session of proxy 0 */
#endif
#ifndef W1
#define W1 1
#endif
#ifndef NCR
#define NCR 1                /* crashes of the orchestrator */
#endif
#ifndef NRE
#define NRE 1                /* reopenings (time-out of CLOSING) */
#endif
#ifndef NPW
#define NPW 0                /* power cuts of the machine that has the store, the proxies and the orchestrator */
#endif
#define LM 6
#define S 0
#define T 1
/* phases */
#define INIT 0
#define PREPARED 1
#define COPYING 2
#define ARMED 3
#define CLOSING 4
#define SWITCHED 5
#define OPEN 6
#define COMPLETING 7
#define DONE 8
#define RARMED 9
#define RCLOSING 10
#define RSWITCHED 11
#define ROPEN 12
#define RCOMPLETING 13
#define RDONE 14
#define CANCELLING 15
#define CANCELLED 16
/* an earlier move, in which our row stays: armed, switched */
#define OTHER_ARMED 17
#define OTHER_SWITCHED 18

/* store */
#ifdef START_OPEN           /* begin after the first switch, both proxies at SWITCHED: the reverse half alone */
#define PH0 OPEN
#define VER0 6
#define FE0 {3, 0}
#define ST0 {0, 1}
#define HAS0 {1, 1}
#define FEN0 {4, 0}
#define MPH0 SWITCHED
#define MVER0 5
#else
#ifdef STAY                 /* an earlier move first */
#define PH0 OTHER_ARMED
#else
#define PH0 INIT
#endif
#define VER0 0
#define FE0 {0, 0}
#define ST0 {0, 0}
#define HAS0 {1, 0}
#define FEN0 {0, 0}
#define MPH0 PH0
#define MVER0 0
#endif
byte ph = PH0; byte ver = VER0; byte gen = 1; byte fe[2] = FE0;
/* shards */
byte row[2]; bool has[2] = HAS0; byte lk[2]; byte sl[2]; byte fen[2] = FEN0; byte gens[2] = 1; byte lg[12]; byte n[2]; byte vis[2];
/* streams: st[d] carries shard d to the other; its row lies on the other shard */
bool st[2] = ST0; byte spos[2];
/* proxies */
byte mph[2] = MPH0; byte mver[2] = MVER0; byte ack[2] = MVER0; byte mfe[2]; byte mfeT[2];
bool rb[2]; bool rold[2]; bool ub[2]; bool uold[2];
bool adm[4] = 1;                 /* adm[2*shard+proxy]: the server accepts this proxy's connections */
bool ev[2];
byte tx[2]; byte txd[2]; byte txid[2];    /* 0 none, 1 open, 2 in binlog, 3 visible, 9 killed */
byte acked;
byte upl[2];                     /* phase of the map under which an unfenced write under way was planned */
bool opened = (PH0 == OPEN); bool ropened;
byte npw; bool dead[2];          /* ended by a power cut, not evicted yet */
#if NPW
byte sph = PH0; byte sver = VER0; byte sack[2] = MVER0; byte sfe[2] = FE0;      /* what the store has on its disk */
#define SYNC sph = ph; sver = ver; sack[0] = ack[0]; sack[1] = ack[1]; sfe[S] = fe[S]; sfe[T] = fe[T]
#ifdef SURVIVE               /* proxies are elsewhere, and go on */
#define ENDED skip
#else
#define ENDED dead[0] = 1; dead[1] = 1
#endif
#define POWER(late) atomic { npw < NPW -> npw++; late; ph = sph; ver = sver; ack[0] = sack[0]; ack[1] = sack[1]; \
  fe[S] = sfe[S]; fe[T] = sfe[T]; ENDED; \
  if :: za >= 64 -> za = 0; zgen = 0; zver = 0 :: else fi; goto crash }
#else
#define SYNC skip
#define POWER(late) atomic { false -> goto crash }
#endif
#define LOOSE if :: SYNC :: skip fi      /* it need not last: written to the disk at once or later, always in order */
#ifdef REPLICA               /* of T; it has what T had at some moment */
byte tpos; byte pos; byte early; bool rhas; byte rrow; byte rpos; byte racked;
#define STEP(d) if :: d == T -> tpos++ :: else fi
#else
#define STEP(d) skip
#endif
/* a stopped old orchestrator's next action */
byte za; byte zgen; byte zver; byte zrow; byte zpos; byte zfe;

#define AD(d,p) adm[2*(d)+(p)]
#define ownS(x) (x <= CLOSING || x >= RSWITCHED)
#define hidT(x) ((x >= PREPARED && x <= CLOSING) || (x >= RSWITCHED && x <= RCOMPLETING) || x == CANCELLING)
#define hidS(x) (x >= SWITCHED && x <= COMPLETING || (x >= RARMED && x <= RCLOSING))
#define unf(x,d) (d == S && (x <= COPYING || x == ROPEN || x == RCOMPLETING || x == RDONE || x >= CANCELLING) || d == T && (x == OPEN || x == COMPLETING || x == DONE))
#define arm(x,d) (d == S && x == ARMED || d == T && x == RARMED)
/* who may commit to shard d when the store says x */
/* a power cut may take OPEN back to SWITCHED: the map forgets that writes have been let go, nobody else does */
#define mayS (ph <= CLOSING || ph == RSWITCHED && ropened || ph == ROPEN || ph == RCOMPLETING || ph == RDONE || ph >= CANCELLING)
#define mayT (ph >= OPEN && ph <= RCLOSING || ph == SWITCHED && opened)

/* maps between which a write of keys that stay need not be waited for: those of the other move, up to its switch */
#define stays(x) (x == OTHER_ARMED || x == OTHER_SWITCHED)
#ifdef MUT_STAYS
#define NOTOLD(p) stays(upl[p])
#else
#define NOTOLD(p) (stays(upl[p]) && stays(ph))
#endif

#define LG(d,i) lg[6*(d)+(i)]
inline put(zd,ze) { LG(zd,n[zd]) = ze; n[zd]++ }
#ifdef NOFILTER
#define putmark(yd,ye) put(yd,ye)
#else
#define putmark(yd,ye) skip
#endif

/* ------------------------------------------------------------------ proxies */
active [2] proctype Proxy() {
  byte p = _pid;
end:
  do
  :: atomic { mver[p] < ver && !ev[p] && !dead[p] ->
       mver[p] = ver; mph[p] = ph; mfe[p] = fe[S]; mfeT[p] = fe[T];
       rold[p] = rb[p]; uold[p] = ub[p] && !NOTOLD(p);
       if :: !rold[p] && !uold[p] -> ack[p] = ver; LOOSE :: else fi }       /* nothing in flight: answers at once */
#ifdef MUT_ACK_EARLY
  :: atomic { ack[p] < mver[p] && !ev[p] && !dead[p] -> ack[p] = mver[p]; LOOSE }
#else
  :: atomic { ack[p] < mver[p] && !ev[p] && !dead[p] && !rold[p] && !uold[p] -> ack[p] = mver[p]; LOOSE }   /* nothing planned under an older map is in flight */
#endif
  /* an evicted proxy has seen its errors: it starts again under a new identity with the newest map */
  :: atomic { ev[p] && !AD(S,p) && !AD(T,p) && !rb[p] && !ub[p] && tx[p] == 0 ->
       ack[p] = 0; SYNC; dead[p] = 0; ev[p] = 0; mver[p] = ver; mph[p] = ph; mfe[p] = fe[S]; mfeT[p] = fe[T]; ack[p] = ver; LOOSE; rold[p] = 0; uold[p] = 0; AD(S,p) = 1; AD(T,p) = 1 }
  od
}

#define SEES(zhas, zrow) if :: zhas && !(dst == S && hidS(m)) && !(dst == T && hidT(m)) -> cnt++; got = got | zrow :: else fi
#ifdef REPLICA               /* a target's replica is read when it has the map's position */
#define LOOK if :: SEES(has[dst], row[dst]) \
  :: dst == T && rpos >= pos && m >= SWITCHED && m <= DONE -> need = need & racked; SEES(rhas, rrow) fi
#else
#define LOOK SEES(has[dst], row[dst])
#endif

active [2] proctype Session() {
  byte p = _pid - 2; byte w; byte need; byte got; byte cnt; byte dst; byte f; byte m; bool fenced; bool autoc;
end:
  do
  /* ---- a write transaction, planned under the map of this moment */
  :: atomic { w < (p == 0 -> W0 : W1) && tx[p] == 0 && !ev[p] && !dead[p] &&
              (unf(mph[p],S) || unf(mph[p],T) || arm(mph[p],S) || arm(mph[p],T)) ->
       dst = ((unf(mph[p],S) || arm(mph[p],S)) -> S : T);
       fenced = (arm(mph[p],S) || arm(mph[p],T));
       f = (dst == S -> mfe[p] : mfeT[p]);
       if :: !fenced -> autoc = 1; ub[p] = 1; upl[p] = mph[p] :: autoc = 0 fi }
     if
     :: atomic { !AD(dst,p) -> ub[p] = 0; upl[p] = 0; uold[p] = 0; goto wend }
     :: atomic { AD(dst,p) && fenced && fen[dst] != f -> goto wend }                     /* refused: nothing done, tried again later */
     :: atomic { AD(dst,p) && lk[dst] == 0 && (!fenced || fen[dst] == f) ->
          txid[p] = 1 << (p * W0 + w); w++;
          lk[dst] = p + 1; tx[p] = 1; txd[p] = dst;
          if :: fenced -> sl[dst] = sl[dst] | (1 << p) :: else fi }
     fi;
     /* the transaction is open, for as long as it likes */
     if
     :: atomic { tx[p] == 9 -> goto wdead }
     :: atomic { tx[p] == 1 && (fenced || autoc) }
     :: atomic { tx[p] == 1 && !fenced && !autoc && unf(mph[p],dst) -> ub[p] = 1; upl[p] = mph[p] }
     :: atomic { tx[p] == 1 && !fenced && !autoc && !unf(mph[p],dst) ->
#ifdef MUT_NOLATE
          skip
#else
          if :: arm(mph[p],dst) -> f = (dst == S -> mfe[p] : mfeT[p]) :: else -> f = 255 fi
#endif
        }
#ifndef MUT_NOLATE
        if
        :: atomic { tx[p] == 1 && fen[dst] == f -> fenced = 1; sl[dst] = sl[dst] | (1 << p) }
        :: atomic { tx[p] == 1 && fen[dst] != f ->
#ifdef MUT_BLIND
             skip
#else
             tx[p] = 9; lk[dst] = 0; goto wdead
#endif
           }
        :: atomic { tx[p] == 9 -> goto wdead }
        fi
#endif
     fi;
     if
     :: atomic { tx[p] == 1 ->                              /* COMMIT: the event can be read */
          assert(dst == T || mayS); assert(dst == S || mayT);
          put(dst, txid[p]); tx[p] = 2 }
     :: atomic { tx[p] == 9 -> goto wdead }
     fi;
     atomic { tx[p] == 3 -> acked = acked | txid[p]; goto wend };
wdead:
wend:  atomic { tx[p] == 9 || tx[p] == 3 || tx[p] == 0 -> tx[p] = 0; ub[p] = 0; upl[p] = 0; uold[p] = 0; fenced = 0; autoc = 0; dst = 0; f = 0; txid[p] = 0; txd[p] = 0 }

#ifndef R0
#define R0 1                 /* does the session of proxy 0 read */
#endif
#ifndef R1
#define R1 1
#endif
  /* ---- a scatter read: each shard once, one map (m) for all of it (a point read is the same without the other shard) */
  :: atomic { !ev[p] && !dead[p] && tx[p] == 0 && (p == 0 -> R0 : R1) -> rb[p] = 1; m = mph[p]; need = acked;
       if :: dst = S :: dst = T fi }
     if
     :: atomic { AD(dst,p) -> LOOK;
          dst = 1 - dst }
        if
        :: atomic { AD(dst,p) ->
#ifdef MUT_TWO_MAPS
             m = mph[p];
#endif
             LOOK;
             assert(cnt == 1);                              /* each row exactly once */
             assert((need & ~got) == 0) }
        :: atomic { !AD(dst,p) }
        fi
     :: atomic { !AD(dst,p) }
     fi;
     atomic { rb[p] = 0; rold[p] = 0; m = 0; need = 0; dst = 0; cnt = 0; got = 0 }
  od
}

/* the engine finishes commits, whoever waits for them */
active proctype Engine() {
end:
  do
  :: atomic { tx[0] == 2 -> row[txd[0]] = row[txd[0]] | txid[0]; vis[txd[0]] = n[txd[0]]; STEP(txd[0]); lk[txd[0]] = 0; sl[txd[0]] = sl[txd[0]] & 2; tx[0] = 3 }
  :: atomic { tx[1] == 2 -> row[txd[1]] = row[txd[1]] | txid[1]; vis[txd[1]] = n[txd[1]]; STEP(txd[1]); lk[txd[1]] = 0; sl[txd[1]] = sl[txd[1]] & 1; tx[1] = 3 }
  od
}

/* ------------------------------------------------------------------ streams */
active [2] proctype Stream() {
  byte d = _pid - 5; byte e;
#ifdef MUT_NOCAS
  byte at;
#endif
end:
  do
#ifdef MUT_NOCAS
  /* an event is read, and applied later whatever has become of the stream's row */
  :: atomic { st[d] && spos[d] < n[d] -> e = LG(d,spos[d]); at = spos[d] }
     atomic { lk[1-d] == 0 -> if :: e < 64 -> has[1-d] = 1; row[1-d] = row[1-d] | e :: else fi; spos[d] = at + 1; e = 0; at = 0 }
#else
  /* the change and the position in one transaction, which first locks the stream's row and compares the position: an
     apply by a stopped old worker finds another position or no row and does nothing, so one step is enough here */
  :: atomic { st[d] && spos[d] < n[d] && lk[1-d] == 0 ->
       e = LG(d,spos[d]);
       if
       :: e < 64 -> assert(has[1-d]); assert((row[1-d] & e) == 0); row[1-d] = row[1-d] | e; STEP(1-d); putmark(1-d, 128|e)
#ifdef NOFILTER
       :: e == 255 -> has[1-d] = 0; row[1-d] = 0
       :: e >= 128 && e < 255 -> assert((row[1-d] & (e & 63)) == 0)
#endif
       fi;
       spos[d] = spos[d] + 1; e = 0 }
#endif
  od
}

/* ------------------------------------------------------------------ orchestrator */
/* actions on shards (fencing token: the shard knows the newest generation) */
#define A_COPY 1
#define A_FENS 2
#define A_MKREV 3
#define A_KILLF 4
#define A_KILLR 5
#define A_DELS 6
#define A_DELT 7
#define A_FENT 8
#define A_MKFWD 9
#define A_LAYS 10
#define A_LAYT 11

inline act(a, r, ps, ep) {
  if
  :: a == A_COPY -> has[T] = 1; row[T] = r; st[S] = 1; spos[S] = ps; STEP(T); putmark(T, 128|r)
  :: a == A_FENS -> if :: fen[S] < ep -> fen[S] = ep :: else fi
  :: a == A_FENT -> if :: fen[T] < ep -> fen[T] = ep :: else fi
#ifdef MUT_LAY_EPOCH
  :: a == A_LAYS -> fen[S] = ep
  :: a == A_LAYT -> fen[T] = ep
#else                        /* a row with an epoch that no map has, if there is none */
  :: a == A_LAYS -> if :: fen[S] == 0 -> fen[S] = 1 :: else fi
  :: a == A_LAYT -> if :: fen[T] == 0 -> fen[T] = 1 :: else fi
#endif
  :: a == A_MKREV -> st[T] = 1; spos[T] = ps
  :: a == A_MKFWD -> st[S] = 1; spos[S] = ps
  :: a == A_KILLF -> st[S] = 0; spos[S] = 0
  :: a == A_KILLR -> st[T] = 0; spos[T] = 0
  :: a == A_DELS -> if :: lk[S] == 0 -> has[S] = 0; row[S] = 0; putmark(S, 255) :: else fi
  :: a == A_DELT -> if :: lk[T] == 0 -> has[T] = 0; row[T] = 0; STEP(T); putmark(T, 255) :: else fi
  fi
}
#define shardof(a) ((a == A_COPY || a == A_KILLF || a == A_DELT || a == A_FENT || a == A_LAYT || a == A_MKFWD) -> T : S)
/* do one action, or crash just before it and leave it behind as the old instance's next action */
#define DO(a, r, ps, ep) if \
  :: atomic { act(a, r, ps, ep) } \
  :: atomic { ncr < NCR -> ncr++; za = a; zgen = gen; zrow = r; zpos = ps; zfe = ep; goto crash } \
  :: POWER(za = a; zgen = gen; zrow = r; zpos = ps; zfe = ep) \
  fi
/* a fence's epoch is the version of the map in which it was armed */
#define TURN(x) ph = x; ver++; if :: x == ARMED -> fe[S] = ver :: x == RARMED -> fe[T] = ver :: x == OPEN -> opened = 1 :: x == ROPEN -> ropened = 1 :: else fi
#define STEPPED(x, how) if \
  :: atomic { TURN(x); how } \
  :: atomic { ncr < NCR -> ncr++; za = 64 + x; zgen = gen; zver = ver; goto crash } \
  :: POWER(skip) \
  fi
#define CAS(x) STEPPED(x, SYNC)
#define CASLOOSE(x) STEPPED(x, LOOSE)
#define KILL1(d,p) AD(d,p) = 0; if :: tx[p] == 1 && txd[p] == d -> tx[p] = 9; lk[d] = 0; sl[d] = sl[d] & (p == 0 -> 2 : 1) :: else fi
/* wait for everybody; a proxy that does not answer is evicted: locked out and killed at each shard */
#ifdef MUT_LEASE
#define EVICT(p) atomic { ack[p] < ver && !ev[p] -> late = late | (1 << p) }
#define PASSED(p) (ack[p] >= ver || ev[p] || (late & (1 << p)))
#else
#ifdef NOEVICT               /* everybody answers (fewer states) */
#define EVICT(p) atomic { false -> skip }
#else
#ifdef EVICT2                /* shard after shard; otherwise both at once (fewer states) */
#define EVICT(p) atomic { ack[p] < ver && !ev[p] -> ev[p] = 1; SYNC }; atomic { KILL1(S,p) }; atomic { KILL1(T,p) }
#else
#define EVICT(p) atomic { ack[p] < ver && !ev[p] -> ev[p] = 1; SYNC; KILL1(S,p); KILL1(T,p) }
#endif
#endif
#ifdef MUT_KILL_NOWAIT
#define GONE(p) true
#else
#define GONE(p) (tx[p] != 1 && tx[p] != 2)     /* KILL returns at once; wait until the process list shows none of its connections */
#endif
#define PASSED(p) (ack[p] >= ver || (ev[p] && !AD(S,p) && !AD(T,p) && GONE(p)))
#endif
#define BARRIER do \
  :: EVICT(0) \
  :: EVICT(1) \
  :: atomic { PASSED(0) && PASSED(1) -> late = 0; break } \
  :: atomic { ev[0] && (AD(S,0) || AD(T,0)) -> KILL1(S,0); KILL1(T,0) } \
  :: atomic { ev[1] && (AD(S,1) || AD(T,1)) -> KILL1(S,1); KILL1(T,1) } \
  :: ncr < NCR -> ncr++; goto crash \
  :: POWER(skip) \
  od

active proctype Orchestrator() {
  byte ncr; byte nre; byte tgt; byte late; byte r; byte q;
  bool mine;                                 /* we have led this closing: nobody else goes on with it */
  goto begin;
crash:
  atomic { tgt = 0; r = 0; q = 0; late = 0; mine = 0; gen++; SYNC }
  gens[S] = gen; gens[T] = gen;              /* claim both shards before anything else */
begin:
end:
  do
#ifdef STAY
  :: ph == OTHER_ARMED -> BARRIER; CAS(OTHER_SWITCHED)
  :: ph == OTHER_SWITCHED -> BARRIER; CAS(INIT)
#endif
  :: ph == INIT -> CAS(PREPARED)
  :: ph == PREPARED ->
#ifndef MUT_NOACK_PREP
     BARRIER;
#endif
     if :: CAS(COPYING) :: CAS(CANCELLING) fi
  :: ph == COPYING ->
#ifndef KEEP_REV
     DO(A_KILLR, 0, 0, 0);                    /* one that a time-out has left */
#endif
     if
     :: !st[S] ->
        if :: has[T] -> DO(A_DELT, 0, 0, 0) :: else fi;
#ifdef MUT_POSFIRST
        q = n[S]; r = row[S];
#else
        atomic { q = vis[S]; r = row[S] };
#endif
        DO(A_COPY, r, q, 0); atomic { r = 0; q = 0 }
     :: else
     fi;
     q = ver + 1; DO(A_LAYS, 0, 0, q); q = 0;
     if :: CAS(ARMED) :: CAS(CANCELLING) fi
  :: ph == ARMED ->
     q = fe[S]; DO(A_FENS, 0, 0, q); q = 0;
#ifndef MUT_NOACK_ARMED
     BARRIER;
#endif
#ifndef MUT_REV_LATE
     q = n[T]; DO(A_MKREV, 0, q, 0); q = 0;   /* the way back begins here: all that still comes to the target is ours */
#endif
#ifdef REPLICA
     early = tpos;
#endif
     if :: atomic { mine = 1 } CAS(CLOSING) :: CAS(CANCELLING) fi
  :: ph == CLOSING ->
     if
     :: !mine || nre < NRE -> if :: mine -> nre++ :: else fi; CAS(COPYING)      /* time-out; led anew */
     :: CAS(CANCELLING)
     :: mine ->
#ifdef MUT_NOFENCE
        tgt = n[S];
#else
        q = fe[S] + 1;
        /* fence and marker are one transaction, when nobody has a lock */
        if :: atomic { sl[S] == 0 -> act(A_FENS, 0, 0, q); tgt = n[S] }
           :: atomic { ncr < NCR -> ncr++; za = A_FENS; zgen = gen; zfe = q; goto crash }
           :: POWER(za = A_FENS; zgen = gen; zfe = q) fi;
        q = 0;
#endif
#ifndef MUT_NODRAIN
        if :: spos[S] >= tgt :: nre < NRE -> nre++; CAS(COPYING); goto begin fi;
#endif
        tgt = 0;
#ifdef REPLICA
#ifdef MUT_POS_EARLY
        pos = early;
#else
        pos = tpos;
#endif
#endif
#ifdef MUT_LOOSE_SWITCHED
        CASLOOSE(SWITCHED);
#else
        CAS(SWITCHED);
#endif
#ifdef REPLICA
        racked = acked;
#endif
        assert(ph != SWITCHED || row[T] == row[S]); assert(ph != SWITCHED || (acked & ~row[T]) == 0)
     fi
  :: ph == SWITCHED ->
#ifndef MUT_FWD_ALIVE
     DO(A_KILLF, 0, 0, 0);
#endif
#ifndef MUT_OPEN_EARLY
     BARRIER;
#endif
     CASLOOSE(OPEN)
  :: ph == OPEN ->
#if defined(REVERSE) && !defined(KEEP_FWD)
     if :: st[S] -> DO(A_KILLF, 0, 0, 0) :: else fi;   /* made in RARMED, and left by a time-out of the way back */
#endif
#ifdef MUT_REV_LATE
     q = n[T]; DO(A_MKREV, 0, q, 0); q = 0;
#endif
     if
     :: CAS(COMPLETING)
#ifdef REVERSE
     :: q = ver + 1; DO(A_LAYT, 0, 0, q); q = 0; CAS(RARMED)
#endif
     fi
  :: ph == COMPLETING ->
#ifdef COMPL_BARRIER         /* with MUT_OPEN_EARLY: shows the stale reads alone */
     BARRIER;
#endif
     DO(A_KILLR, 0, 0, 0);
     do :: has[S] -> DO(A_DELS, 0, 0, 0) :: else -> break od;
     CAS(DONE)
  :: ph == DONE -> assert(!has[S] && has[T] && (acked & ~row[T]) == 0); break
  :: ph == CANCELLING ->
#ifdef MUT_CANCEL_ORDER
     DO(A_DELT, 0, 0, 0);
#endif
     DO(A_KILLF, 0, 0, 0); DO(A_KILLR, 0, 0, 0);
#ifdef MUT_CANCEL_NODEL
     CAS(CANCELLED)
#else
     if :: has[T] -> DO(A_DELT, 0, 0, 0) :: else fi;
     CAS(CANCELLED)
#endif
  :: ph == CANCELLED -> assert(has[S] && (acked & ~row[S]) == 0); break
#ifdef REVERSE
  :: ph == RARMED ->
     q = fe[T]; DO(A_FENT, 0, 0, q); q = 0; BARRIER;
#ifdef MUT_FWD_FROM_START    /* from when the source still had the keys */
     DO(A_MKFWD, 0, 0, 0);
#else
     q = n[S]; DO(A_MKFWD, 0, q, 0); q = 0;
#endif
     mine = 1; CAS(RCLOSING)
  :: ph == RCLOSING ->
     if
     :: !mine || nre < NRE -> if :: mine -> nre++ :: else fi; CAS(OPEN)         /* time-out; led anew */
     :: mine ->
        q = fe[T] + 1;
        if :: atomic { sl[T] == 0 -> act(A_FENT, 0, 0, q); tgt = n[T] }
           :: atomic { ncr < NCR -> ncr++; za = A_FENT; zgen = gen; zfe = q; goto crash }
           :: POWER(za = A_FENT; zgen = gen; zfe = q) fi;
        q = 0;
        if :: spos[T] >= tgt :: nre < NRE -> nre++; CAS(OPEN); goto begin fi; tgt = 0;
        CAS(RSWITCHED);
        assert(ph != RSWITCHED || row[T] == row[S]); assert(ph != RSWITCHED || (acked & ~row[S]) == 0)
     fi
  :: ph == RSWITCHED -> DO(A_KILLR, 0, 0, 0); BARRIER; CASLOOSE(ROPEN)
  :: ph == ROPEN -> CAS(RCOMPLETING)
  :: ph == RCOMPLETING -> DO(A_KILLF, 0, 0, 0); do :: has[T] -> DO(A_DELT, 0, 0, 0) :: else -> break od; CAS(RDONE)
  :: ph == RDONE -> assert(has[S] && !has[T] && (acked & ~row[S]) == 0); break
#endif
  od
}
/* the old instance's action arrives */
active proctype Zombie() {
end:
  do
  :: atomic { za > 0 && za < 64 ->
       if
#ifdef LAY_NOTOKEN           /* only the laying of the fence's row asks for no token */
       :: za != A_LAYS && za != A_LAYT && gens[shardof(za)] > zgen -> skip
#define ZOK (gens[shardof(za)] <= zgen || za == A_LAYS || za == A_LAYT)
#else
#ifndef MUT_NOTOKEN
       :: gens[shardof(za)] > zgen -> skip
#define ZOK (gens[shardof(za)] <= zgen)
#else
#define ZOK true
#endif
#endif
       :: ZOK && (za != A_FENS || sl[S] == 0 || (zfe & 1) == 0) && (za != A_FENT || sl[T] == 0 || (zfe & 1) == 0) -> act(za, zrow, zpos, zfe)
       fi; za = 0; zgen = 0; zrow = 0; zpos = 0; zfe = 0 }
  :: atomic { za >= 64 ->
       if :: gen == zgen && ver == zver -> TURN(za - 64); SYNC :: else fi; za = 0; zgen = 0; zver = 0 }
  od
}

#ifdef REPLICA
active proctype Replica() {
end:
  do
  :: atomic { rpos < tpos -> rhas = has[T]; rrow = row[T]; rpos = tpos }
  od
}
#endif
