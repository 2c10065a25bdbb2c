/* commit.pml: last-resource commit over one deciding shard D and NP participants (section 7).
 *
 * A coordinator proxy (may die, or stop for ever with its connections open), NR recoverers, crashes of D and of the
 * participants, a broken connection to D while COMMIT is under way (the server may still execute it), a statement that
 * is still queued at a server when its client is gone.  MARIADB: a branch attached to a live connection answers XAER_NOTA
 * to everyone else; when its connection ends, the server gives the name of the branch free a moment before the engine does
 * (`half`), and who ends the branch in that moment is answered OK, while the engine keeps the branch prepared, with its
 * locks, and nobody lists it any more (LOST).  The rules of the corrected protocol are on by default; each MUT_* switches
 * one off.
 */
#ifndef NP
#define NP 2
#endif
#ifndef NCRASH
#define NCRASH 2
#endif
#define NONE 0
#define ACT  1     /* open transaction / active branch */
#define PREP 2     /* branch prepared;  for D: decision row inserted, not committed (row locked) */
#define COM  3
#define RB   4
#define LOST 5     /* MariaDB: ended in name, prepared in the engine */

byte dtx = ACT;            /* D's plain transaction */
bool dconn = 1;            /* the server still holds the coordinator's connection to D */
bool cD = 1;               /* the coordinator still believes in that connection */
bool dpend;                /* COMMIT sent, not executed */
bool dup = 1;              /* D is up */
byte drow;                 /* committed row in xa_decision: 0 none, 1 commit, 2 abort */
byte br[NP];               /* branches */
bool att[NP];              /* branch still attached to the coordinator's connection */
bool half[NP];             /* MariaDB: no longer by name, still in the engine */
bool ppend[NP];            /* XA PREPARE sent, not executed */
bool rup[NP];
byte told;                 /* 0 nothing, 1 ok, 2 aborted, 3 outcome unknown (connection closed) */
bool cdead;                /* the coordinator is gone */
bool cdone;                /* the coordinator ended by itself */
byte ncrash;
bool hang;                 /* the coordinator is stopped for ever with its connections open */

inline commit_D() {        /* the only place where the decision falls */
  dtx = COM;
  assert(br[0] == PREP || br[0] == COM);
  assert(NP < 2 || br[NP-1] == PREP || br[NP-1] == COM);
  assert(told != 2)        /* client was told: aborted */
}
inline commit_br(i)   { assert(dtx == COM); br[i] = COM }
inline rollback_br(i) { assert(dtx != COM); br[i] = RB }
#ifdef MARIADB
#define detach(i) att[i] = 0; half[i] = (br[i] == PREP)
#else
#define detach(i) att[i] = 0
#endif

/* server D executes a queued COMMIT, or notices that its client is gone */
active proctype ServerD() {
end:
  do
  :: atomic { dup && dpend -> dpend = 0;
       if
       :: dtx == PREP -> drow = 1; commit_D()
#ifdef MUT_PIPELINE
       :: dtx == ACT -> commit_D()           /* COMMIT although the decision row was refused */
#endif
       :: else -> skip
       fi }
  :: atomic { dup && dconn && (cdead || !cD) -> dpend = 0; dconn = 0;
       if :: dtx == ACT || dtx == PREP -> dtx = RB :: else fi }
  od
}
/* participants: queued PREPARE, disconnects */
active [NP] proctype ServerR() {
  byte i = _pid - 1;                         /* ServerD is pid 0 */
end:
  do
  :: atomic { rup[i] && ppend[i] -> ppend[i] = 0; if :: br[i] == ACT -> br[i] = PREP :: else fi }
  :: atomic { rup[i] && (cdead || cdone) && att[i] -> ppend[i] = 0; detach(i); if :: br[i] == ACT -> br[i] = RB :: else fi }
  :: atomic { half[i] -> half[i] = 0 }
  od
}

/* INSERT of the abort row under the same key, then read what is there.  Waits for an uncommitted decision row;
 * after patience it kills the connection that holds it. */
inline lookup(res) {
  if
#ifdef MUT_NOABORTROW
  :: atomic { dup -> res = (drow == 1 -> 1 : 2) }
#else
  :: atomic { dup && dtx != PREP -> if :: drow == 0 -> drow = 2 :: else fi; res = drow }
#ifdef MUT_NOKILL_D
  :: atomic { 0 -> skip }
#else
  :: atomic { dup && dtx == PREP && !dpend -> dtx = RB; dconn = 0 }      /* KILL its connection; look again */
#endif
     atomic { dup && dtx != PREP -> if :: drow == 0 -> drow = 2 :: else fi; res = drow }
#endif
  fi
}

proctype Coordinator() {
  byte i = 0; byte res = 0; bool allok = 1; bool comm = 0;
  {
  /* prepare */
  do
  :: i < NP -> 
     if
     :: atomic { att[i] -> ppend[i] = 1 }
        if
        :: atomic { !ppend[i] && br[i] == PREP -> i++ }
        :: atomic { !ppend[i] && br[i] != PREP -> goto abort }
        :: goto abort                                   /* time-out: outcome of PREPARE unknown */
        fi
     :: atomic { !att[i] -> goto abort }
     fi
  :: i == NP -> break
  od;
  /* decision row inside D's transaction */
  if
  :: atomic { dup && dconn && dtx == ACT && drow == 0 -> dtx = PREP }
  :: atomic { dup && dconn && dtx == ACT && drow != 0 ->  /* 1062: a recoverer's abort row */
#ifdef MUT_PIPELINE
       skip
#else
       goto abort
#endif
     }
  :: atomic { dup && dconn && dtx == ACT -> dtx = RB;     /* 1213: the server rolled the whole transaction back */
#ifdef MUT_PIPELINE
       skip
#else
       goto abort
#endif
     }
  :: atomic { !dconn -> cD = 0; goto abort }
  fi;
  /* COMMIT */
  if
  :: atomic { dconn -> dpend = 1 }
  :: atomic { !dconn -> cD = 0; goto abort }              /* not sent: no decision can appear */
  fi;
  if
  :: atomic { dconn && !dpend ->                          /* an OK packet for our COMMIT */
#ifdef MUT_PIPELINE
       comm = 1
#else
       assert(dtx == COM); comm = 1
#endif
     }
  :: atomic { !dconn -> cD = 0 } goto unknown
  :: atomic { cD = 0 } goto unknown                       /* network lost: COMMIT may still run */
  fi;
decided:
  if :: told = 1; assert(dtx == COM) :: skip fi;          /* the reply may go out before or after phase two */
  i = 0;
  do
  :: i < NP ->
     if
     :: atomic { rup[i] && att[i] && br[i] == PREP -> commit_br(i) }
     :: atomic { rup[i] && br[i] == COM }                 /* a recoverer did it */
     :: atomic { !rup[i] || !att[i] -> allok = 0 }        /* leave it to recovery */
#ifdef MUT_RESET
     :: atomic { att[i] && br[i] == PREP -> att[i] = 0; br[i] = RB; allok = 0; assert(dtx != COM) } /* MariaDB: reset loses the row */
#else
     :: atomic { att[i] -> allok = 0; detach(i); if :: br[i] == ACT -> br[i] = RB :: else fi } /* time-out: close, never reset */
#endif
     fi;
     i++
  :: i == NP -> break
  od;
  if :: told == 0 -> told = 1; assert(dtx == COM) :: else fi;
  if
#ifdef MUT_DELETE_UNCHECKED
  :: atomic { dup -> drow = 0 }
#else
  :: atomic { allok && dup -> drow = 0 }                  /* every XA COMMIT answered OK: delete the decision */
#endif
  :: skip
  fi;
  goto over;
unknown:                                                  /* same look-up as recovery, before the client hears anything */
#ifdef MUT_GUESS
  told = 2; assert(dtx != COM); goto over;
#endif
  if
  :: lookup(res);
     if :: res == 1 -> comm = 1; goto decided
        :: else -> goto abort2
     fi
  :: told = 3; goto over                                  /* patience ends: drop the client, claim nothing */
  fi;
abort:                                                    /* COMMIT was never sent on D */
  atomic { if :: dup && dconn && (dtx == ACT || dtx == PREP) -> dtx = RB :: else fi; cD = 0 };
abort2:
  told = 2; assert(dtx != COM);
  i = 0;
  do
  :: i < NP ->
     if
     :: atomic { rup[i] && att[i] && !ppend[i] && (br[i] == PREP || br[i] == ACT) -> rollback_br(i) }
     :: atomic { att[i] -> detach(i); if :: br[i] == ACT && !ppend[i] -> br[i] = RB :: else fi }   /* or close and leave it */
     :: atomic { !att[i] || br[i] == COM || br[i] == RB }
     fi;
     i++
  :: i == NP -> break
  od;
over:
  atomic { cdone = 1; cD = 0 }
  } unless { cdead || hang }
}

proctype Recoverer() {
  byte i; byte res; byte seen;
end:
  do
  :: atomic { (br[0] == PREP && rup[0]) || (br[NP-1] == PREP && rup[NP-1]) ->
       res = 0; i = 0; seen = 0;
       do :: i < NP -> if :: br[i] == PREP && rup[i] -> seen = seen | (1 << i) :: else fi; i++ :: else -> break od }
     lookup(res);
     i = 0;
     do
     :: i < NP && (seen & (1 << i)) ->
        if
        :: atomic { rup[i] && br[i] == PREP &&
#ifdef MARIADB
             !att[i] && !half[i] ->                         /* seen first; once true it stays true */
#else
             true ->
#endif
             if :: res == 1 -> commit_br(i) :: else -> rollback_br(i) fi }
        :: atomic { rup[i] && br[i] != PREP }             /* XAER_NOTA and XA RECOVER lists it no more */
#ifdef MARIADB
#ifdef MUT_NOTA_IS_DONE
        :: atomic { rup[i] && br[i] == PREP && att[i] -> if :: dup -> drow = 0 :: else fi }   /* took XAER_NOTA for "done", deleted the row */
#elif !defined(MUT_NOKILL_R)
        :: atomic { rup[i] && br[i] == PREP && att[i] -> detach(i) }    /* attached: KILL the owner's connection, next round */
#endif
        :: atomic { rup[i] && br[i] == PREP && half[i] ->
#ifdef MUT_NOWAIT_ENGINE
             br[i] = LOST                                   /* answered OK */
#else
             skip                                           /* next round */
#endif
           }
#endif
        :: atomic { !rup[i] }                             /* next round */
        fi; i++
     :: i < NP && !(seen & (1 << i)) -> i++
     :: i == NP -> break
     od
#ifdef MUT_RECOVERER_DELETES_COMMIT
  :: atomic { dup && drow == 1 && rup[0] && rup[NP-1] && br[0] != PREP && br[NP-1] != PREP -> drow = 0 }
#elif defined(MUT_RECOVERER_DELETES)
  :: atomic { dup && drow != 0 && rup[0] && rup[NP-1] && br[0] != PREP && br[NP-1] != PREP -> drow = 0 }
#else
  /* rows of a coordinator are deleted by others only when that coordinator can do nothing any more */
  :: atomic { dup && drow != 0 && (cdead || cdone) && !dconn && !dpend && dtx != ACT && dtx != PREP &&
              rup[0] && rup[NP-1] && br[0] != PREP && br[NP-1] != PREP -> drow = 0 }
#endif
  od
}

proctype Nemesis() {
  byte i;
end:
  do
  :: atomic { ncrash < NCRASH && dup -> ncrash++; dup = 0; dconn = 0; dpend = 0;
       if :: dtx == ACT || dtx == PREP -> dtx = RB :: else fi }
  :: atomic { !dup -> dup = 1 }
  :: atomic { ncrash < NCRASH -> 
       if :: i = 0 :: NP > 1 -> i = NP-1 fi;
       if :: rup[i] -> ncrash++; rup[i] = 0; att[i] = 0; half[i] = 0; ppend[i] = 0; if :: br[i] == ACT -> br[i] = RB :: else fi :: else fi }
  :: atomic { !rup[0] -> rup[0] = 1 }
  :: atomic { !rup[NP-1] -> rup[NP-1] = 1 }
  od
}

init {
  atomic {
    br[0] = ACT; att[0] = 1; rup[0] = 1; br[NP-1] = ACT; att[NP-1] = 1; rup[NP-1] = 1;
    run Nemesis();
    run Recoverer();
#ifndef ONE_RECOVERER
    run Recoverer();
#endif
  }
  /* the coordinator dies or hangs at any step */
  run Coordinator();
  if
  :: atomic { !cdone -> cdead = 1; cD = 0 }      /* dies: its connections close */
  :: atomic { !cdone -> hang = 1 }               /* SIGSTOP for ever: its connections stay open */
  :: cdone
  fi;
  /* when nothing can move any more */
  (timeout) ->
    assert(dup && rup[0] && rup[NP-1]);
    assert(br[0] != PREP && br[NP-1] != PREP);                       /* nothing in doubt */
    assert(br[0] != LOST && br[NP-1] != LOST);
    assert(dtx == COM || dtx == RB || (hang && br[0] != COM && br[NP-1] != COM));
    assert(dtx != COM || (br[0] == COM && br[NP-1] == COM));
    assert(dtx == COM || (br[0] != COM && br[NP-1] != COM));
    assert(told != 1 || dtx == COM);
    assert(told != 2 || dtx != COM)
}
