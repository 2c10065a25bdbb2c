/* copy.pml: snapshot cycles, watermark, change stream and checkpoint (section 8), with XA branches in the binlog.
 *
 * Source: a binlog whose events can be read before they are visible (vis <= blen); an XA branch writes its rows with
 * XA PREPARE and is decided by a later XA COMMIT or XA ROLLBACK.  Copier and applier are one worker that may crash
 * between any two steps and loses what is not in the target.  A change carries its before image and the target must
 * match it (affected rows asserted).  At the end source and target must be equal.
 *
 * -DMARIADB: an XA PREPARE counts as part of a position before XA RECOVER lists its branch, and an XA COMMIT before its
 * rows are visible; the branch is not listed in that time, but the process list shows the statement.
 */
#ifndef NK
#define NK 2
#endif
#ifndef NW
#define NW 2      /* plain writes */
#endif
#ifndef NX
#define NX 1      /* XA branches */
#endif
#ifndef NC
#define NC 1      /* crashes of the worker */
#endif
#define NL (NW + 2*NX)
#define PLAIN 1
#define XPREP 2
#define XCOM  3
#define XRB   4

byte vrow[NK];                 /* visible rows, 0 = absent */
bool lock[NK];
byte ltype[NL]; byte lkey[NL]; byte lbef[NL]; byte laft[NL]; byte lx[NL];
byte blen; byte vis;
byte nw;
byte xst[NX];                   /* 0 none, 1 prepare written, 2 listed by XA RECOVER, 3 outcome written, 4 gone, 5 counted, not listed, not visible */
#define RUNNING(x) (xst[x] == 1 || xst[x] == 3 || xst[x] == 5)          /* an XA statement of it is in the process list */
byte xk[NX]; byte xb[NX]; byte xa[NX]; byte xp[NX];     /* key, images, place of the PREPARE */
#define counted(x) (vis > xp[x])

/* durable in the target */
byte trow[NK]; byte wm; byte pos; byte rp; bool started; bool unk[NX];
byte ncr; bool finished;

inline put(t,k,b,a,x) { ltype[blen]=t; lkey[blen]=k; lbef[blen]=b; laft[blen]=a; lx[blen]=x; blen++ }

inline prepare(x) {
  if :: k = 0 :: k = NK-1 fi;
  if :: !lock[k] ->
       if :: v = 0 :: v = 1 :: v = 2 fi;
       if :: v != vrow[k] -> lock[k] = 1; xst[x] = 1; xk[x] = k; xb[x] = vrow[k]; xa[x] = v; xp[x] = blen; put(XPREP, k, vrow[k], v, x) :: else fi
     :: else fi; k = 0; v = 0
}
active proctype Source() {
  byte k; byte v;
end:
  do
  :: atomic { nw < NW ->
       if :: k = 0 :: k = NK-1 fi;
       if :: !lock[k] ->
            if :: v = 0 :: v = 1 :: v = 2 fi;
            if :: v != vrow[k] -> nw++; lock[k] = 1; put(PLAIN, k, vrow[k], v, 0) :: else fi
          :: else fi; k = 0; v = 0 }
  :: atomic { NX > 0 && xst[0] == 0 -> prepare(0) }
  :: atomic { NX > 1 && xst[NX-1] == 0 -> prepare(NX-1) }
  :: atomic { NX > 0 && xst[0] == 2 -> xst[0] = 3; if :: put(XCOM, 0, 0, 0, 0) :: put(XRB, 0, 0, 0, 0) fi }
  :: atomic { NX > 1 && xst[NX-1] == 2 -> xst[NX-1] = 3; if :: put(XCOM, 0, 0, 0, NX-1) :: put(XRB, 0, 0, 0, NX-1) fi }
  /* the engine makes things visible in binlog order */
  :: atomic { vis < blen ->
       if
       :: ltype[vis] == PLAIN -> vrow[lkey[vis]] = laft[vis]; lock[lkey[vis]] = 0
#ifdef MARIADB
       :: ltype[vis] == XPREP -> skip
       :: ltype[vis] == XCOM  -> xst[lx[vis]] = 5
#else
       :: ltype[vis] == XPREP -> xst[lx[vis]] = 2
       :: ltype[vis] == XCOM  -> vrow[xk[lx[vis]]] = xa[lx[vis]]; lock[xk[lx[vis]]] = 0; xst[lx[vis]] = 4
#endif
       :: ltype[vis] == XRB   -> lock[xk[lx[vis]]] = 0; xst[lx[vis]] = 4
       fi; vis++ }
#ifdef MARIADB
  :: atomic { NX > 0 && xst[0] == 1 && counted(0) -> xst[0] = 2 }
  :: atomic { NX > 1 && xst[NX-1] == 1 && counted(NX-1) -> xst[NX-1] = 2 }
  :: atomic { NX > 0 && xst[0] == 5 -> vrow[xk[0]] = xa[0]; lock[xk[0]] = 0; xst[0] = 4 }
  :: atomic { NX > 1 && xst[NX-1] == 5 -> vrow[xk[NX-1]] = xa[NX-1]; lock[xk[NX-1]] = 0; xst[NX-1] = 4 }
#endif
  od
}

#ifdef MARIADB
/* wait until the XA statements that are under way now have ended */
#define ENDED atomic { i = 0; do :: i < NX -> stm[i] = RUNNING(i); i++ :: else -> break od; i = 0 }; \
  do \
  :: atomic { stm[0] && !RUNNING(0) -> stm[0] = 0 } \
  :: atomic { stm[NX-1] && !RUNNING(NX-1) -> stm[NX-1] = 0 } \
  :: atomic { !stm[0] && !stm[NX-1] -> break } \
  od
#define DOUBT(x) (cpl[x] > 0 && cpl[x] <= p && (cpl[x] > since || prep[x]))
#endif
#define CRASH atomic { ncr < NC -> ncr++; goto restart }
inline apply() {   /* one event, with its position, in one target transaction */
  atomic {
    if
    :: ltype[pos] == PLAIN ->
#ifdef MUT_NOWM
       if :: true ->
#else
       if :: lkey[pos] < wm ->
#endif
            assert(trow[lkey[pos]] == lbef[pos]); trow[lkey[pos]] = laft[pos]
          :: else fi
    :: ltype[pos] == XPREP -> known[lx[pos]] = 1; pidx[lx[pos]] = pos; filt[lx[pos]] = (lkey[pos] < wm);
#ifdef MUT_XA_AT_PREPARE
       if :: lkey[pos] < wm -> assert(trow[lkey[pos]] == lbef[pos]); trow[lkey[pos]] = laft[pos] :: else fi
#endif
    :: ltype[pos] == XCOM ->
#ifndef MUT_XA_AT_PREPARE
       if :: known[lx[pos]] ->
#ifdef MUT_XA_FILTER
            if :: filt[lx[pos]] ->
#else
            if :: xk[lx[pos]] < wm ->
#endif
               assert(trow[xk[lx[pos]]] == xb[lx[pos]]); trow[xk[lx[pos]]] = xa[lx[pos]] :: else fi
#if !defined(MUT_XA_SNAP) && !defined(MUT_XA_RESTART)
          :: !known[lx[pos]] -> assert(wm == 0)            /* a commit without its rows: fatal once anything was copied */
#else
          :: else
#endif
       fi;
#endif
#ifdef MARIADB
       cpl[lx[pos]] = pos + 1;
#endif
       known[lx[pos]] = 0
    :: ltype[pos] == XRB -> known[lx[pos]] = 0
    fi;
#ifdef MUT_POS_SEPARATE
  }
  if :: skip :: CRASH fi;
  atomic {
#endif
    pos++;
    rp = pos;
#ifndef MUT_XA_RESTART
    i = 0; do :: i < NX -> if :: known[i] && pidx[i] < rp -> rp = pidx[i] :: else fi; i++ :: else -> break od; i = 0;
#endif
  }
}

active proctype Worker() {
  byte snap[NK]; byte p; byte i;
  bool known[NX]; byte pidx[NX]; bool filt[NX];       /* volatile: prepared groups seen */
#ifdef MARIADB
  bool stm[NX]; bool prep[NX]; byte since; byte cpl[NX];     /* cpl: where this process read its XA COMMIT, 1 more */
#endif
  goto begin;
restart:
  atomic {
    p = 0; i = 0;
#ifdef MARIADB
    since = 0; i = 0; do :: i < NX -> stm[i] = 0; prep[i] = 0; cpl[i] = 0; i++ :: else -> break od;
#endif
    i = 0; do :: i < NK -> snap[i] = 0; i++ :: else -> break od;
    i = 0; do :: i < NX -> known[i] = 0; pidx[i] = 0; filt[i] = 0; i++ :: else -> break od;
    /* read again from the restart position: only collect prepared groups */
    i = rp;
    do :: i < pos -> 
          if :: ltype[i] == XPREP -> known[lx[i]] = 1; pidx[lx[i]] = i; filt[lx[i]] = (xk[lx[i]] < wm)
             :: ltype[i] == XCOM || ltype[i] == XRB -> known[lx[i]] = 0
             :: else fi; i++
       :: else -> break od;
    i = 0
  }
begin:
  if
  :: atomic { !started ->                              /* the stream begins at an exact position; note the branches already prepared */
       started = 1; pos = vis; rp = vis;
#ifndef MARIADB
       i = 0; do :: i < NX -> unk[i] = (xst[i] == 2 || xst[i] == 3); i++ :: else -> break od; i = 0
#endif
     }
  :: started
  fi;
#ifdef MARIADB
  if
  :: wm < NK ->
#ifndef MUT_LIST_AT_ONCE
     ENDED;                                            /* a PREPARE behind the position, and not listed yet */
#endif
     atomic { i = 0; do :: i < NX -> unk[i] = (xst[i] == 2 || xst[i] == 3); i++ :: else -> break od; i = 0 };
     atomic { !(unk[0] && (xst[0] == 2 || xst[0] == 3)) && !(unk[NX-1] && (xst[NX-1] == 2 || xst[NX-1] == 3)) };
     skip
  :: else
  fi;
#endif
cycle:
  do
  :: wm < NK ->
     /* catch up freely (an event may be applied before it is visible) */
     do
     :: pos < blen -> apply()
     :: break
     :: CRASH
     od;
     /* snapshot with its position */
#ifdef MUT_POSFIRST
     p = blen;
     atomic { i = 0; do :: i < NK -> snap[i] = vrow[i]; i++ :: else -> break od; i = 0 };
     if :: p >= pos :: else -> goto cycle fi;
#elif defined(MARIADB)
     since = blen;
#ifndef MUT_NO_RUNNING
     ENDED;
#endif
     atomic { i = 0; do :: i < NX -> prep[i] = (xst[i] == 2 || xst[i] == 3); i++ :: else -> break od; i = 0 };
     atomic { p = vis; i = 0; do :: i < NK -> snap[i] = vrow[i]; i++ :: else -> break od; i = 0 };
     if :: p >= pos :: else -> goto cycle fi;
#else
     atomic {
#ifndef MUT_XA_SNAP
       (NX == 0 || !(unk[0] && (xst[0] == 2 || xst[0] == 3)));
       (NX < 2 || !(unk[NX-1] && (xst[NX-1] == 2 || xst[NX-1] == 3))) ->
#endif
       p = vis; i = 0; do :: i < NK -> snap[i] = vrow[i]; i++ :: else -> break od; i = 0 };
#ifndef MUT_NOPOSCHECK
     if :: p >= pos :: else -> goto cycle fi;          /* the snapshot is older than what the stream has applied or skipped */
#endif
#endif
     /* forward to the snapshot's position */
     do
     :: pos < p -> apply()
     :: pos >= p -> break
     :: CRASH
     od;
#if defined(MARIADB) && !defined(MUT_NO_DOUBT)
     /* branches whose outcome the place counts, and that may be invisible in the snapshot */
     if
     :: DOUBT(0) || DOUBT(NX-1) -> goto cycle
     :: else
     fi;
#endif
     atomic { trow[wm] = snap[wm]; wm++; p = 0; i = 0; do :: i < NK -> snap[i] = 0; i++ :: else -> break od; i = 0 }
     if :: skip :: CRASH fi
  :: wm == NK -> break
  od;
  /* follow the stream to its end */
follow:
  do
  :: pos < blen -> apply()
  :: atomic { nw == NW && pos == blen && vis == blen && (NX == 0 || (xst[0] == 4 && xst[NX-1] == 4)) -> break }
  :: CRASH
  od;
  atomic { i = 0; do :: i < NK -> assert(trow[i] == vrow[i]); i++ :: else -> break od };
  finished = 1;
  goto over;

over: skip
}
