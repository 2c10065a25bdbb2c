/* straddle.pml: a multi-shard transaction and a one-shard transaction across the cutover of section 8.
 *
 * T1 is an XA branch on the source S (its deciding shard is elsewhere), T2 a plain transaction on S.  Both pass the
 * fence with LOCK IN SHARE MODE.  Measured: MariaDB 10.11 gives the shared lock back at XA PREPARE; MySQL 9.7 keeps it,
 * but loses it when the server is killed and recovers the branch.  Row locks of changed rows survive both.
 *   KEEP_S     the server keeps shared locks at PREPARE (MySQL);  default: gives them back (MariaDB)
 *   NOCRASH    S does not crash
 *   WAIT_SLOT  (corrected protocol) a branch changes its own row of _shardproxy.fence_slot; the orchestrator, after the
 *              bump, reads those rows with LOCK IN SHARE MODE
 *   WAIT_LIST  instead: after the bump, wait until XA RECOVER lists nothing
 *   WAIT_LIST_FIRST  instead: XA RECOVER first, bump afterwards
 *   MUT_OLD_BRANCHES  do not wait for branches that were prepared without the fence before ARMED was acknowledged
 *   ONE_TX     fence, look at the slots and marker in one transaction, which takes only locks that nobody has; where a slot
 *              is locked, the fence first, then (WAIT_SLOT) slots and marker.  MUT_NO_SLOTS: the slots are not looked at
 *   DRAIN_AT_FENCE   the drain target is the fence's own event, not a marker written after the wait
 */
byte t1;      /* 0 none, 1 active, 2 prepared in the engine, 3 listed by XA RECOVER, 4 commit in binlog, 5 committed, 6 rolled back */
byte t2;      /* 0 none, 1 active, 2 commit in binlog, 3 committed, 4 rolled back */
bool s1, s2;  /* shared locks on the fence row */
bool slot;    /* exclusive lock on T1's slot row */
bool fence;   /* 1 closed */
bool fx;      /* the orchestrator has the exclusive lock on the fence row, in a transaction that has not committed */
byte dec;     /* T1: 0 open, 1 commit, 2 abort */
bool ack1, ack2;
byte lg[6]; byte n;          /* binlog: 1 T1 prepared rows, 2 T1 commit, 3 T1 rollback, 4 T2, 5 fence, 6 marker */
byte pos; bool pend; byte trow;
bool sw;
byte ncr;
bool armed; bool map1; bool ack; bool ev; bool unf;   /* ARMED published; T1's proxy has it; acknowledged; T1 is without the fence */
#define W(e) lg[n] = e; n++

active proctype Branch() {          /* T1's coordinator; it may stop anywhere */
end0: if :: atomic { map1 && !ev && !fence && !fx && t1 == 0 -> s1 = 1; slot = 1; t1 = 1 }
         :: atomic { !map1 && !ev && t1 == 0 -> unf = 1; t1 = 1 }                     /* begun before ARMED */
      fi;
      if :: atomic { t1 == 1 && unf && map1 && !fx -> if :: !fence -> s1 = 1; slot = 1; unf = 0 :: else -> t1 = 6 fi }   /* the late check */
         :: t1 == 1 && !(unf && map1)
         :: t1 == 6
      fi;
end1: if :: atomic { t1 == 1 -> W(1); t1 = 2;
#ifndef KEEP_S
         s1 = 0
#endif
       }
       :: t1 == 6 -> goto end9
   fi;
   if :: atomic { t1 == 2 -> t1 = 3 } :: t1 != 2 fi;
end2: if :: atomic { t1 == 3 && dec == 0 -> dec = 1 } :: dec == 2 || t1 == 6 -> goto end9 fi;
   if :: ack1 = 1 :: skip fi;                 /* the answer may leave before phase two */
end3: if :: atomic { t1 == 3 && dec == 1 -> assert(!sw); W(2); t1 = 4 } :: t1 >= 4 fi;
end4: ack1 = 1;
end9: skip
}
active proctype Proxy() {           /* acknowledges when no PREPARE without the fence is under way */
end: do
  :: atomic { armed && !map1 && !(unf && t1 == 1) -> map1 = 1 }
  :: atomic { armed && !map1 && unf && t1 == 1 -> map1 = 1 }
  :: atomic { map1 && !ack && !(unf && (t1 == 1 || t1 == 2)) -> ack = 1 }
  od
}
active proctype Recover() {
end: do
  :: atomic { t1 == 3 && dec == 0 -> dec = 2 }                            /* abort row */
  :: atomic { t1 == 3 && dec == 1 -> assert(!sw); W(2); t1 = 4 }
  :: atomic { t1 == 3 && dec == 2 -> W(3); t1 = 6; s1 = 0; slot = 0 }
  od
}
active proctype Plain() {           /* T2: the check's result is read before COMMIT is sent */
end0: if :: atomic { !fence && !fx && t2 == 0 -> s2 = 1; t2 = 1 } fi;
end1: if :: atomic { t2 == 1 -> assert(!sw); W(4); t2 = 2 } :: t2 == 4 -> goto end9 fi;
end2: if :: t2 == 3 -> ack2 = 1 fi;
end9: skip
}
active proctype Engine() {          /* visible, locks released: after the binlog write */
end: do
  :: atomic { t1 == 4 -> t1 = 5; s1 = 0; slot = 0 }
  :: atomic { t2 == 2 -> t2 = 3; s2 = 0 }
#ifndef NOCRASH
  :: atomic { ncr < 2 -> ncr++;               /* kill -9 and restart of S: shared locks are gone, prepared branches stay */
       s1 = 0; s2 = 0; fx = 0;
       if :: t1 == 1 -> t1 = 6; slot = 0 :: t1 == 2 -> t1 = 3 :: t1 == 4 -> t1 = 5; slot = 0 :: else fi;
       if :: t2 == 1 -> t2 = 4 :: t2 == 2 -> t2 = 3 :: else fi }
#endif
  od
}
active proctype Applier() {
end: do
  :: atomic { pos < n ->
       if :: lg[pos] == 1 -> pend = 1
          :: lg[pos] == 2 -> assert(pend); trow = trow | 1
          :: lg[pos] == 4 -> trow = trow | 2
          :: else fi; pos++ }
  od
}
active proctype Orchestrator() {
  byte tgt;
  armed = 1;
  if :: ack
     :: atomic { !ack -> ev = 1; if :: t1 == 1 -> t1 = 6; s1 = 0; slot = 0 :: else fi }     /* evicted: its connections are killed, */
        atomic { t1 != 2 }                                                     /* and gone; a prepared branch stays */
  fi;
#ifndef MUT_OLD_BRANCHES
  atomic { !(unf && (t1 == 3 || t1 == 4)) };         /* branches listed by XA RECOVER after the barrier: until resolved */
#endif
#ifdef WAIT_LIST_FIRST
  atomic { t1 != 3 };
#endif
#ifdef ONE_TX
again:
  atomic { !s1 && !s2 -> fx = 1 };
#ifndef MUT_NO_SLOTS
  if :: atomic { fx && slot -> fx = 0; goto apart } :: atomic { !slot || !fx } fi;
#endif
  if :: atomic { fx -> fence = 1; W(6); tgt = n; fx = 0; goto marked } :: atomic { !fx -> goto again } fi;
apart:
#endif
  atomic { !s1 && !s2 -> fence = 1; W(5); tgt = n };
#ifdef WAIT_SLOT
  atomic { !slot };
#endif
#ifdef WAIT_LIST
  atomic { t1 != 3 };
#endif
#ifndef DRAIN_AT_FENCE
  atomic { W(6); tgt = n };
#endif
#ifdef ONE_TX
marked:
#endif
  atomic { pos >= tgt -> sw = 1;
    assert(dec != 1 || (trow & 1)); assert(!ack1 || (trow & 1)); assert(!ack2 || (trow & 2));
    assert(t1 < 2 || t1 >= 5 || (t1 == 4 && (trow & 1))); assert(t2 == 0 || t2 >= 3 || (trow & 2)) }
  (timeout) -> assert(sw); assert(!ack1 || (trow & 1)); assert(!ack2 || (trow & 2))
}
