/* home.pml: the numbers of AUTO_INCREMENT columns when a move makes another shard the home (reshard/home_records.py).
 *
 * Shards A = 0 and B = 1, one sequence.  On each: `here`, the generation of the row without name, and the sequence's row:
 * next, parked (its generation).  Workers take blocks by the map they have, be it ever so old; nobody waits for them.
 * A leader that may crash between any two steps; what it was about to do may arrive later.  Then the way back, or
 * another move.  No table's largest number helps: rows with the numbers that were given may come at any time.
 */
#ifndef NT
#define NT 3                 /* blocks that a worker takes or tries to take */
#endif
#ifndef NCR
#define NCR 1                /* crashes of the leader */
#endif
#ifndef NM
#define NM 2                 /* switches: there, back, ... */
#endif
#define BLOCK 2
#define NONE 255

byte home; byte ver;                       /* the store's map: which shard is the home; its version */
bool handed = 1;                           /* the step after the switch is done */
byte here[2] = {1, NONE}; bool row[2]; byte next[2]; byte parked[2] = 1;
byte gen = 1; byte gens[2] = 1;            /* the leader's generation; the token of each shard */
int given;                                 /* numbers that were given out */
/* the next action of a leader that was stopped */
byte za; byte zshard; byte zgen; byte zvalue;

#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define P_EXPECT 1           /* numbers are not here: the coming home */
#define P_PARK 2             /* the old home's numbers are void */
#define P_PUT 3              /* the new home goes on above them */

inline act(a, s, v) {
  if
  :: a == P_EXPECT -> here[s] = 0
#ifdef MUT_NOPARK            /* they are only read */
  :: a == P_PARK -> if :: row[s] && next[s] > 0 -> parked[s] = next[s] :: else fi
#else
  :: a == P_PARK ->
#ifndef MUT_HERE_STAYS
       here[s] = 0;
#endif
       if :: row[s] && next[s] > 0 -> parked[s] = next[s]; next[s] = 0 :: else fi
#endif
#ifdef MUT_PUT_AS_IS         /* over what is there */
  :: a == P_PUT -> if :: v > 1 -> if :: !row[s] -> row[s] = 1; parked[s] = 1 :: else fi; next[s] = v :: else fi; here[s] = 1
#else
  :: a == P_PUT -> if :: v > 1 -> if :: !row[s] -> row[s] = 1; parked[s] = 1 :: else fi; next[s] = MAX(next[s], v) :: else fi; here[s] = 1
#endif
  fi
}

active [2] proctype Worker() {
  byte m; byte mver; byte pos; byte end; byte n; bool started; byte r; bool isnew;
end_:
  do
  /* a newer map: a sequence is made anew, or goes on with its block */
  :: atomic { mver < ver -> m = home; mver = ver; started = 0; if :: pos = 0; end = 0 :: skip fi }
  :: atomic { pos < end -> assert(!(given & (1 << pos))); given = given | (1 << pos); pos++ }
  /* its row is made if there is none; then, in a transaction that locks the row without name first, it is begun */
  :: atomic { !started && n < NT -> n++;
       if :: here[m] == NONE -> here[m] = 1 :: else fi;
       if :: !row[m] -> row[m] = 1; next[m] = 0; parked[m] = 1 :: else fi }
#ifdef MUT_START_APART       /* it is asked before, not in the transaction */
     isnew = (here[m] != 0);
     atomic { if :: isnew -> next[m] = MAX(next[m], 1); started = 1 :: else fi; isnew = 0 }
#else
     atomic { if :: here[m] != 0 -> next[m] = MAX(next[m], 1); started = 1 :: else fi }
#endif
  /* a block; what is left of the last one is taken again if nobody has moved the sequence */
  :: atomic { started && n < NT -> n++;
       if
       :: next[m] > 0 -> r = (next[m] == end -> pos : next[m]);
            next[m] = MAX(next[m], r + BLOCK);
            if :: r == pos -> end = MAX(end, pos + BLOCK) :: else -> end = r + BLOCK fi;
            pos = r; r = 0;
            if :: skip :: pos = 0; end = 0 fi                  /* its answer may get lost */
       :: else -> started = 0; pos = 0; end = 0
       fi;
       assert(end < 31) }
  od
}

#define DO(a, s, v) if \
  :: atomic { gens[s] == gen -> act(a, s, v) } \
  :: atomic { ncr < NCR -> ncr++; za = a; zshard = s; zgen = gen; zvalue = v; goto crash } \
  fi

active proctype Leader() {
  byte ncr; byte moves; byte v;
  goto begin;
crash:
  atomic { v = 0; gen++ }
  gens[0] = gen; gens[1] = gen;                     /* claim both shards before anything else */
begin:
end_:
  do
  :: handed && moves < NM ->
#ifndef MUT_NOEXPECT
     DO(P_EXPECT, 1 - home, 0);
#endif
     atomic { moves++; home = 1 - home; ver++; handed = 0 }
  :: !handed ->
#ifdef MUT_PUT_FIRST         /* what is read is not void yet */
     v = (row[1 - home] && next[1 - home] > 0 -> next[1 - home] : 1);
     DO(P_PUT, home, v);
     DO(P_PARK, 1 - home, 0);
#else
     DO(P_PARK, 1 - home, 0);
#ifdef MUT_NOPARK
     v = (row[1 - home] -> parked[1 - home] : 1);
#else
     v = (row[1 - home] && next[1 - home] == 0 -> parked[1 - home] : 1);
#endif
     DO(P_PUT, home, v);
#endif
     v = 0;
     handed = 1
  :: handed && moves == NM -> break
  od
}

/* the stopped leader's action arrives */
active proctype Late() {
end_:
  do
  :: atomic { za > 0 ->
       if
#ifdef MUT_NOTOKEN
       :: true -> act(za, zshard, zvalue)
#else
       :: gens[zshard] == zgen -> act(za, zshard, zvalue)
       :: gens[zshard] != zgen -> skip
#endif
       fi;
       za = 0; zshard = 0; zgen = 0; zvalue = 0 }
  od
}
