/* Moving Redis keys between two nodes that know nothing of it: see docs/redis-moves.md.

   One key of a moving bucket. Proxies, each with one client that adds and deletes, and two movers: the second one is
   another instance that was started while the first stands still somewhere, and goes on when it likes. Who stops for
   ever, or dies with a command in a socket, is an interleaving. Every atomic block is one command or script at one node,
   or one commit of the store.

   Asserted: each command finds the value that the commands before it have left, whichever node it is done at. */

#ifndef OPS
#define OPS 2           /* commands of a proxy's client */
#endif
#ifndef NP
#define NP 2
#endif
#define STABLE 0        /* src has the keys */
#define PREPARED 1      /* the same; the target is emptied */
#define CLOSING 2       /* proxies hold commands */
#define MOVING 3        /* the target has the keys, after a pull from src */
#define CLOSED(i) (2 * (i))
#define OPEN(i) (2 * (i) + 1)
#define LAST 2          /* moves: there, and back again */

/* the store */
byte epoch = 1, phase, move; bit src, back;  /* back: of a move that was cancelled */
/* the nodes */
byte value[2], fence[2]; bit arrived[2];
bit shut[4];            /* proxy p shut out at node n: p * 2 + n */
/* the proxies */
byte seen[NP], acked[NP]; byte busy[NP];     /* busy: commands under way, without pulls */
byte truth;             /* what one server would have */

#define OTHER(n) (1 - (n))
#define RAISE(n, f) atomic { if :: fence[n] < f -> fence[n] = f :: else fi }

/* The command, once; it goes to one node. */
inline execute(n) {
    assert(value[n] == truth);
    if
    :: value[n] < 3 -> value[n]++
    :: value[n] > 0 -> value[n] = 0
    fi;
    truth = value[n]
}

/* ok: nothing is at the source any more. */
inline pull(m, s, gone, ok) {
    ok = 0; taken = 0;
#ifndef MUT_DROP_FIRST
    atomic {
        if
        :: gone -> skip
        :: !gone && fence[s] != OPEN(m) -> skip
        :: !gone && fence[s] == OPEN(m) -> taken = value[s]; ok = (taken == 0)
        fi
    }
#else
    atomic { if :: fence[s] == OPEN(m) -> taken = value[s]; ok = (taken == 0); value[s] = 0 :: else fi };
#endif
    if
    :: taken == 0 -> skip
    :: else ->
        atomic {
            if
#ifdef MUT_PUT_UNFENCED
            :: 1 ->
#else
            :: fence[OTHER(s)] == OPEN(m) ->
#endif
                ok = 1;
                if
#ifndef MUT_NO_MARK
                :: arrived[OTHER(s)] -> skip
                :: !arrived[OTHER(s)] && value[OTHER(s)] -> ok = 0
                :: !arrived[OTHER(s)] && !value[OTHER(s)] -> value[OTHER(s)] = taken; arrived[OTHER(s)] = 1
#else
                :: value[OTHER(s)] -> skip
                :: else -> value[OTHER(s)] = taken
#endif
                fi
#ifndef MUT_PUT_UNFENCED
            :: else -> skip
#endif
            fi
        };
        atomic {
            if
#ifdef MUT_DROP_UNFENCED
            :: ok -> value[s] = 0
#else
            :: ok && fence[s] == OPEN(m) -> value[s] = 0
#endif
            :: else -> ok = 0
            fi
        }
    fi;
    taken = 0
}

proctype proxy(byte p) {
    byte left = OPS, taken, p_phase, p_move, p_epoch; bit p_src, ok;
    p_epoch = 1; p_phase = STABLE;
    do
    :: atomic { seen[p] != epoch && (busy[p] == 0) ->
            seen[p] = epoch; p_epoch = epoch; p_phase = phase; p_move = move; p_src = src; acked[p] = epoch }
    :: left > 0 && p_phase <= PREPARED ->
        atomic { seen[p] == p_epoch -> busy[p] = 1 };
#ifdef MUT_ACK_EARLY
        atomic { if :: 1 -> acked[p] = epoch :: 1 -> skip fi };
#endif
        atomic { if :: shut[p * 2 + p_src] -> goto out :: else -> execute(p_src); left--; busy[p] = 0 fi }
    :: left > 0 && p_phase == MOVING ->
        pull(p_move, p_src, shut[p * 2 + p_src], ok);
        if
        :: shut[p * 2] || shut[p * 2 + 1] -> goto out
        :: else
        fi;
        /* Other maps may have come in meanwhile: the command is routed anew. */
        if
        :: atomic { ok && p_epoch == seen[p] -> busy[p] = 1 };
            atomic { if :: shut[p * 2 + OTHER(p_src)] -> goto out
                        :: else -> execute(OTHER(p_src)); left--; busy[p] = 0 fi }
        :: else
        fi
#ifdef MUT_NO_HOLD
    :: left > 0 && p_phase == CLOSING ->
        atomic { if :: shut[p * 2 + p_src] -> goto out :: else -> execute(p_src); left-- fi }
#endif
    :: left == 0 -> break
    od;
out:
    /* It goes on to acknowledge: a proxy without clients. */
    busy[p] = 0;
end:
    do
    :: atomic { acked[p] != epoch && !(shut[p * 2] || shut[p * 2 + 1]) -> seen[p] = epoch; acked[p] = epoch }
    od
}

inline barrier(e) {
    p = 0;
    do
    :: p == NP -> break
    :: p < NP && acked[p] >= e -> p++
    :: p < NP && acked[p] < e ->
#ifdef MUT_NO_BARRIER
        p++
#else
        shut[p * 2] = 1; shut[p * 2 + 1] = 1; p++
#endif
    od
}

/* The next map, if nobody else has made one. */
inline commit(new_phase, new_move, new_src, new_back) {
    atomic { if :: epoch == m_epoch -> epoch++; phase = new_phase; move = new_move; src = new_src; back = new_back
                :: else fi }
}

proctype mover() {
    byte m_epoch, m_phase, m_move, taken, p; bit m_src, m_back, ok, found;
    do
    :: atomic { m_epoch = epoch; m_phase = phase; m_move = move; m_src = src; m_back = back };
        if
        :: m_phase == STABLE && m_move == LAST -> break
        :: m_phase == STABLE && m_move < LAST -> commit(PREPARED, m_move + 1, m_src, 0)
        :: m_phase == PREPARED ->
            RAISE(0, CLOSED(m_move)); RAISE(1, CLOSED(m_move));
            atomic { if :: fence[OTHER(m_src)] == CLOSED(m_move) -> arrived[OTHER(m_src)] = 0 :: else fi };
#ifdef MUT_EMPTY_UNFENCED
            value[OTHER(m_src)] = 0;
#elif !defined(MUT_NOT_EMPTIED)
            atomic { if :: fence[OTHER(m_src)] == CLOSED(m_move) -> value[OTHER(m_src)] = 0 :: else fi };
#endif
            commit(CLOSING, m_move, m_src, 0)
        :: m_phase == CLOSING ->
            if
            :: !m_back && m_move == 1 -> commit(STABLE, m_move, m_src, 0)    /* out of time */
            :: 1 ->
                RAISE(0, CLOSED(m_move)); RAISE(1, CLOSED(m_move));
                barrier(m_epoch);
                if
                :: m_back ->
                    /* Now src is the target of the move that was cancelled. What has arrived there, and is
                       still where it came from, must not be found there. */
                    atomic { found = arrived[m_src] };
                    if
                    :: found -> atomic { if :: fence[OTHER(m_src)] == CLOSED(m_move) -> value[OTHER(m_src)] = 0 :: else fi }
                    :: else
                    fi;
                    atomic { if :: fence[m_src] == CLOSED(m_move) -> arrived[m_src] = 0 :: else fi };
                    atomic { if :: fence[OTHER(m_src)] == CLOSED(m_move) -> arrived[OTHER(m_src)] = 0 :: else fi }
                :: else
                fi;
                RAISE(0, OPEN(m_move)); RAISE(1, OPEN(m_move));
                commit(MOVING, m_move, m_src, m_back)
            fi
        :: m_phase == MOVING ->
            if
            :: m_move < LAST -> commit(CLOSING, m_move + 1, OTHER(m_src), 1)  /* cancelled */
            :: 1 ->
#ifdef MUT_NOT_SCANNED
                ok = 1;
#else
                pull(m_move, m_src, 0, ok);
#endif
                if
                :: ok -> commit(STABLE, m_move, OTHER(m_src), 0)
                :: else
                fi
            fi
        fi
    od
}

init {
    byte p;
    atomic {
        if :: value[0] = 1; truth = 1 :: skip fi;
        if :: value[1] = 3 :: skip fi;    /* left by something earlier */
        p = 0;
        do :: p < NP -> seen[p] = 1; acked[p] = 1; run proxy(p); p++ :: else -> break od;
        run mover();
#ifdef TWO_MOVERS
        run mover()
#endif
    };
    /* Everything has ended but the proxies that only acknowledge. */
    (_nr_pr == NP + 1);
    assert(phase == STABLE && value[src] == truth)
}
