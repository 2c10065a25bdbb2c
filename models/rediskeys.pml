/* Moving Redis keys between two nodes that know nothing of it: see docs/redis-moves.md.

   One key of a moving bucket. Proxies, each with one client that adds and deletes, and two movers: the second one is
   another instance that was started while the first stands still somewhere, and goes on when it likes. Who stops for
   ever, or dies with a command in a socket, is an interleaving. Every atomic block is one command or script at one node,
   or one commit of the store.

   Asserted: each command finds the value that the commands before it have left, whichever node it is done at.

   FAILOVERS: so many times a node is replaced by its replica, which has what the node had at some moment before. What was
   acknowledged since is lost, as it is with one Redis and its replica; nothing else may be. */

#ifndef FAILOVERS
#define FAILOVERS 0
#endif

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
#ifndef LAST
#define LAST 2          /* moves: there, and back again */
#endif

/* the store */
byte epoch = 1, phase, move; bit src, back;  /* back: of a move that was cancelled */
/* the nodes */
byte value[2], fence[2]; bit arrived[2];
bit shut[4];            /* proxy p shut out at node n: p * 2 + n */
/* the proxies */
byte seen[NP], acked[NP]; byte busy[NP];     /* busy: commands under way, without pulls */
byte truth;             /* what one server would have */
/* the replicas: what they have; rtruth: what one server would have after a failover now */
byte rvalue[2], rfence[2]; bit rarrived[2], rshut[4]; byte rtruth;
byte gen[2];            /* which process is the node: connections to another one are lost */
byte failovers = FAILOVERS;

#define OTHER(n) (1 - (n))
#define RAISE(n, f) atomic { if :: fence[n] < f -> fence[n] = f :: else fi }

/* The node that the next command finds the value at. */
#define DST OTHER(src)
#define AT_DST ((phase == MOVING && (arrived[DST] || value[src] == 0)) \
                || (phase == CLOSING && back && !arrived[src] && value[DST]))
#define HOME (AT_DST -> DST : src)

/* The replica has all that the node has now. */
inline replicate(n) {
    if :: HOME == n -> rtruth = truth :: else fi;
    rvalue[n] = value[n]; rfence[n] = fence[n]; rarrived[n] = arrived[n];
    rshut[n] = shut[n]; rshut[2 + n] = shut[2 + n]
}

#define LAGS(n) (rvalue[n] != value[n] || rfence[n] != fence[n] || rarrived[n] != arrived[n] \
                 || rshut[n] != shut[n] || rshut[2 + n] != shut[2 + n])

inline failover(n) {
    if :: HOME == n -> truth = rtruth :: else fi;
    value[n] = rvalue[n]; fence[n] = rfence[n]; arrived[n] = rarrived[n];
    shut[n] = rshut[n]; shut[2 + n] = rshut[2 + n];
    gen[n]++
}

/* WAIT on the connection to process g, where all that must be waited for was done. */
inline wait_at(n, g, done) {
    atomic { if :: FAILOVERS == 0 -> done = 1
                :: FAILOVERS && gen[n] == g -> replicate(n); done = 1
                :: FAILOVERS && gen[n] != g -> done = 0 fi }
}

#if FAILOVERS
active proctype world() {
end:
    do
    :: atomic { failovers && LAGS(0) -> replicate(0) }
    :: atomic { failovers && LAGS(1) -> replicate(1) }
    :: atomic { failovers -> failovers--; failover(0) }
    :: atomic { failovers -> failovers--; failover(1) }
    od
}
#endif

/* The command, once; it goes to one node. */
inline execute(n) {
    assert(value[n] == truth);
    if
    :: value[n] < 3 -> value[n]++
    :: value[n] > 0 -> value[n] = 0
    fi;
    truth = value[n]
}

/* ok: the target has the key. g: the process that it was put on, or is looked for at. */
inline pull(m, s, gone, ok, g) {
    ok = 0; taken = 0;
    atomic {
        if
        :: gone -> skip
        :: !gone && fence[s] != OPEN(m) -> skip
        :: !gone && fence[s] == OPEN(m) ->
            taken = value[s]; ok = (taken == 0); g = gen[OTHER(s)];
#ifdef MUT_DROP_FIRST
            value[s] = 0
#endif
        fi
    };
    if
    :: taken == 0 -> skip
    :: else ->
        atomic {
            g = gen[OTHER(s)];
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
        }
    fi
}

/* When all replicas of the target have the key. */
inline drop(m, s, ok) {
    atomic {
        if
#ifdef MUT_DROP_UNFENCED
        :: ok -> value[s] = 0
#else
        :: ok && fence[s] == OPEN(m) -> value[s] = 0
#endif
        :: else -> ok = 0
        fi
    };
    taken = 0
}

proctype proxy(byte p) {
    byte left = OPS, taken, p_phase, p_move, p_epoch, g; bit p_src, ok;
    p_epoch = 1; p_phase = STABLE;
    do
    :: atomic { seen[p] != epoch && (busy[p] == 0) ->
            seen[p] = epoch; p_epoch = epoch; p_phase = phase; p_move = move; p_src = src; acked[p] = epoch }
    :: left > 0 && p_phase <= PREPARED ->
        atomic { seen[p] == p_epoch -> busy[p] = 1; g = gen[p_src] };
#ifdef MUT_ACK_EARLY
        atomic { if :: 1 -> acked[p] = epoch :: 1 -> skip fi };
#endif
        atomic { if :: gen[p_src] != g -> left--; busy[p] = 0   /* an error: whether it ran is not known */
                    :: gen[p_src] == g && shut[p * 2 + p_src] -> goto out
                    :: else -> execute(p_src); left--; busy[p] = 0 fi }
    :: left > 0 && p_phase == MOVING ->
        pull(p_move, p_src, shut[p * 2 + p_src], ok, g);
        /* It may be dropped here too, if its replicas have it: so that SCAN finds it once. */
        if
        :: taken && ok && !shut[p * 2 + p_src] ->
            if
#ifndef MUT_DROP_LAGS
            :: FAILOVERS == 0 || gen[OTHER(p_src)] != g -> skip
            :: atomic { FAILOVERS && gen[OTHER(p_src)] == g -> replicate(OTHER(p_src)) }; drop(p_move, p_src, ok)
#else
            :: drop(p_move, p_src, ok)
#endif
            :: FAILOVERS == 0 -> drop(p_move, p_src, ok)
            :: skip
            fi
        :: else
        fi;
        taken = 0;
        if
        :: shut[p * 2] || shut[p * 2 + 1] -> goto out
        :: else
        fi;
        /* Other maps may have come in meanwhile: the command is routed anew. */
        if
        :: atomic { ok && p_epoch == seen[p] -> busy[p] = 1 };
            atomic { if
#ifndef MUT_KEEP_HERE
                        :: gen[OTHER(p_src)] != g -> left--; busy[p] = 0
                        :: gen[OTHER(p_src)] == g && shut[p * 2 + OTHER(p_src)] -> goto out
#else
                        :: shut[p * 2 + OTHER(p_src)] -> goto out
#endif
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
    byte m_epoch, m_phase, m_move, taken, p, g, h; bit m_src, m_back, ok, found;
    do
    :: atomic { m_epoch = epoch; m_phase = phase; m_move = move; m_src = src; m_back = back };
        if
        :: m_phase == STABLE && m_move == LAST -> break
        :: m_phase == STABLE && m_move < LAST -> commit(PREPARED, m_move + 1, m_src, 0)
        :: m_phase == PREPARED ->
            atomic { g = gen[OTHER(m_src)]; h = gen[m_src] };
            RAISE(0, CLOSED(m_move)); RAISE(1, CLOSED(m_move));
            atomic { if :: fence[OTHER(m_src)] == CLOSED(m_move) -> arrived[OTHER(m_src)] = 0 :: else fi };
#ifdef MUT_EMPTY_UNFENCED
            value[OTHER(m_src)] = 0;
#elif !defined(MUT_NOT_EMPTIED)
            atomic { if :: fence[OTHER(m_src)] == CLOSED(m_move) -> value[OTHER(m_src)] = 0 :: else fi };
#endif
#ifndef MUT_EMPTY_LAGS
            wait_at(OTHER(m_src), g, ok);
            if :: ok -> wait_at(m_src, h, ok) :: else fi;
#else
            ok = 1;
#endif
            if :: ok -> commit(CLOSING, m_move, m_src, 0) :: else fi
        :: m_phase == CLOSING ->
            if
            :: !m_back && m_move == 1 -> commit(STABLE, m_move, m_src, 0)    /* out of time */
            :: 1 ->
                atomic { g = gen[OTHER(m_src)]; h = gen[m_src] };
                RAISE(0, CLOSED(m_move)); RAISE(1, CLOSED(m_move));
                barrier(m_epoch);
#ifndef MUT_CLOSING_LAGS
                wait_at(m_src, h, ok);
                if :: ok -> wait_at(OTHER(m_src), g, ok) :: else fi;
#else
                ok = 1;
#endif
                if
                :: m_back && ok ->
                    /* Now src is the target of the move that was cancelled. What has arrived there, and is
                       still where it came from, must not be found there. */
                    atomic { found = arrived[m_src] && gen[m_src] == h };
                    if
                    :: found -> atomic { if :: fence[OTHER(m_src)] == CLOSED(m_move) -> value[OTHER(m_src)] = 0 :: else fi }
                    :: else
                    fi;
                    wait_at(OTHER(m_src), g, ok);
                    if
                    :: ok -> atomic { if :: fence[m_src] == CLOSED(m_move) && gen[m_src] == h -> arrived[m_src] = 0
                                         :: fence[m_src] == CLOSED(m_move) && gen[m_src] != h -> ok = 0
                                         :: else fi }
                    :: else
                    fi
                :: else
                fi;
                if
                :: ok ->
                    RAISE(0, OPEN(m_move)); RAISE(1, OPEN(m_move));
                    commit(MOVING, m_move, m_src, m_back)
                :: else
                fi
            fi
        :: m_phase == MOVING ->
            if
            :: m_move < LAST -> commit(CLOSING, m_move + 1, OTHER(m_src), 1)  /* cancelled */
            :: 1 ->
#ifdef MUT_NOT_SCANNED
                ok = 1;
#else
                RAISE(0, OPEN(m_move)); RAISE(1, OPEN(m_move));    /* a replica may not have it */
                pull(m_move, m_src, 0, ok, g);
                if
                :: taken && ok ->
#ifndef MUT_DROP_LAGS
                    wait_at(OTHER(m_src), g, ok);
#endif
                    drop(m_move, m_src, ok)
                :: else -> taken = 0
                fi;
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
        rvalue[0] = value[0]; rvalue[1] = value[1]; rtruth = truth;
        p = 0;
        do :: p < NP -> seen[p] = 1; acked[p] = 1; run proxy(p); p++ :: else -> break od;
        run mover();
#ifdef TWO_MOVERS
        run mover()
#endif
    };
    /* Everything has ended but the proxies that only acknowledge. */
    (_nr_pr == NP + 1 + (FAILOVERS > 0));
    assert(phase == STABLE && value[src] == truth)
}
