/* watch.pml: rows that somebody writes directly to the shard that gave them away (reshard/watch.py, bypass.py), from the
 * end of the stream to the deletion of the old rows.
 *
 * The shard's binlog: events of direct writes to a row, and our own.  A commit is three steps: its event can be read; its
 * rows are visible and their locks free; the server's position has it (in the order of the binlog).  Rows are deleted one by
 * one, each in a transaction that has locked it; where there is no row, nothing is locked.  The leader may crash between any
 * two steps; its transaction is rolled back, and the next one reads from the place that is kept.
 */
#ifndef ND
#define ND 2                 /* direct writes */
#endif
#ifndef NCR
#define NCR 1                /* crashes of the leader */
#endif
#define NR 2                 /* rows */
#define MOST 24
#define OURS 9

byte log[MOST]; byte n;      /* events: row, or OURS */
byte seen;                   /* of the log: in the server's position */
byte done;                   /* of the log: committed, locks free (in order too) */
bool has[NR] = 1; byte lk[NR];           /* 0 free, 1 a direct writer, 2 the deleter */
byte unknown[NR];            /* direct writes to a row that are not on the other shard, nor told to anybody */
bool stream = 1; byte place; /* the stream; its place, from its end on the watch's */
bool watching; byte at; bool found;      /* the watch in the leader's memory */

inline write(e) { assert(n < MOST); log[n] = e; n++ }

active proctype Writer() {
  byte k; byte i; byte mine;
end_:
  do
  :: k < ND -> k++;
     if :: i = 0 :: i = 1 fi;
     atomic { lk[i] == 0 -> lk[i] = 1 };
     atomic { unknown[i]++; write(i); mine = n };
     atomic { done == mine - 1 -> done = mine; has[i] = 1; lk[i] = 0; i = 0; mine = 0 }
  od
}

active proctype Server() {
end_:
  do
  :: atomic { seen < done -> seen++ }
  od
}

active proctype Stream() {
end_:
  do
  :: atomic { stream && place < n -> if :: log[place] != OURS -> unknown[log[place]]-- :: else fi; place++ }
  od
}

/* our own transaction commits: its event, then the rest; its OK comes when the position has it */
#define COMMIT(effect) atomic { write(OURS); mine = n }; atomic { done == mine - 1 -> done = mine; effect }; \
  atomic { seen >= mine -> mine = 0 }

active proctype Watch() {
end_:
  do
  :: atomic { watching && at < n ->
       if :: log[at] != OURS -> found = 1 :: else fi;
       at++ }
#ifdef MUT_BEYOND            /* its place goes on beyond what it has found */
  :: atomic { watching && place < at -> place = at }
#else
  :: atomic { watching && !found && place < at -> place = at }
#endif
  od
}

#define CRASH :: atomic { ncr < NCR -> ncr++; goto crash }
/* everything that the position has now is read */
#define NONE atomic { goal = seen }; if :: atomic { found || at >= goal -> goal = 0 } CRASH fi

active proctype Leader() {
  byte ncr; byte i; byte goal; byte mine; bool some;
  goto begin;
crash:
  /* locks are given back, the memory is lost */
  atomic { if :: lk[0] == 2 -> lk[0] = 0 :: else fi; if :: lk[1] == 2 -> lk[1] = 0 :: else fi;
           i = 0; goal = 0; mine = 0; some = 0; watching = 0; at = 0; found = 0 }
begin:
  /* after the switch: the stream ends, its place is kept in the same transaction */
  if
  :: stream ->
     stream = 0;
#ifdef MUT_FROM_NOW          /* the watch begins where the binlog is then */
     place = seen;
#endif
  :: else
  fi;
  if :: skip CRASH fi;
  atomic { watching = 1; at = place };
  /* completing */
  NONE;
  if :: found -> goto stop :: else fi;
again:
  some = 0; i = 0;
  do
  :: i < NR ->
     if
     :: has[i] || lk[i] == 1 ->
        atomic { lk[i] == 0 -> lk[i] = 2 };
#ifdef MUT_NO_SURE           /* only before and after the deletion */
        skip;
#else
#ifndef MUT_SURE_AT_ONCE     /* who has given the lock free may not be in the position yet */
        COMMIT(skip);
#endif
        NONE;
        if :: found -> goto stop :: else fi;
#endif
        atomic { if :: has[i] -> assert(unknown[i] == 0); some = 1 :: else fi; write(OURS); mine = n };
        atomic { done == mine - 1 -> done = mine; has[i] = 0; lk[i] = 0 };
        if :: atomic { seen >= mine -> mine = 0 } CRASH fi
     :: else
     fi;
     i++
  :: else -> break
  od;
  if :: some -> goto again :: else fi;
  NONE;                      /* what came behind is still there, and somebody should know */
  if :: found -> goto stop :: else fi;
  atomic { i = 0;
    assert(unknown[0] == 0 || has[0] || lk[0] == 1); assert(unknown[1] == 0 || has[1] || lk[1] == 1) };
  goto out;
stop:
  /* it says what it has found, and deletes nothing more; who leads it anew must find it again */
  atomic { if :: lk[0] == 2 -> lk[0] = 0 :: else fi; if :: lk[1] == 2 -> lk[1] = 0 :: else fi };
  if :: skip CRASH fi;
out:
  skip
}
