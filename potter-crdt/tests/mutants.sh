#!/usr/bin/env bash
# Breaks a copy of the crate on purpose, one defect at a time, and runs the tests on it: they must
# fail. A mutant that passes is a hole in the tests. Needs a few minutes; not part of CI.
#
#   potter-crdt/tests/mutants.sh
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cargo=${CARGO:-cargo}
survivors=0

# NAME FILE FROM TO: the first FROM in FILE becomes TO (plain text).
mutant() {
    local name=$1 file=$2 from=$3 to=$4
    rm -rf "$copy/potter-crdt"
    cp -rL "$root/potter-crdt" "$copy/potter-crdt"
    FROM=$from TO=$to perl -0pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/ or die "not found\n"' \
        "$copy/potter-crdt/$file" || { echo "BAD      $name"; survivors=$((survivors + 1)); return; }
    if (cd "$copy" && $cargo test -q -p potter-crdt --test main) >"$copy/log" 2>&1; then
        echo "SURVIVED $name"
        survivors=$((survivors + 1))
    elif grep -q '^error' "$copy/log" && ! grep -q 'test result: FAILED' "$copy/log"; then
        echo "NO BUILD $name"
        survivors=$((survivors + 1))
    else
        echo "caught   $name ($(grep -c '^    [a-z_]*::' "$copy/log") tests)"
    fi
}

cp "$root/Cargo.lock" "$copy/"
sed -e 's/^members = .*/members = ["potter-crdt"]/' -e '/^default-members/,/^]/d' -e '/^exclude/d' \
    "$root/Cargo.toml" >"$copy/Cargo.toml"

mutant "LWW: ties keep what is held" src/lww_register.rs \
    '.then_with(|| a.1.canonical_bytes().cmp(&b.1.canonical_bytes()))' ''
mutant "set: reused dots are trusted" src/causal/set.rs \
    '&& other.print != dot.print' '&& false'
mutant "set: removes are forgotten in a join" src/causal/set.rs \
    'gone.push(DotIx::new(actor, dot.seq))' '{}'
mutant "set: removed elements come back" src/causal/set.rs \
    'if !cx.mine_saw(DotIx::new(actor, dot.seq))' 'if true'
mutant "counter: overflow saturates" src/counter/g_counter.rs \
    '.checked_add(by)
            .ok_or_else(|| Error::overflow("an actor'"'"'s row of a counter"))?' '.saturating_add(by)'
mutant "writer: a second user of an actor is not noticed" src/writer.rs \
    'if seen > self.seq { Err(self.reused(seen)) } else { Ok(()) }' \
    'let _ = self.reused(seen); Ok(())'
mutant "counter: two histories are merged" src/counter/pn_counter.rs \
    'joined == self || joined == other' 'joined == self || joined == other || true'
mutant "timestamps: the offset is dropped" src/timestamp.rs \
    'minute * 60 + second - offset' 'minute * 60 + second - offset * 0'
mutant "clock: equal milliseconds give equal stamps" src/hlc.rs \
    'Some((at, counter)) if at >= wall =>' 'Some((at, counter)) if at > wall =>'
mutant "clock: follows any future" src/hlc.rs \
    'if stamp.at > wall.plus(self.ahead_max).unwrap_or(Timestamp::MAX)' 'if false'
mutant "register: a write may lose against what it read" src/hlc.rs \
    'self.last = before.max(read.map(|stamp| (stamp.at, stamp.counter)));' 'let _ = read;'
mutant "counter in a map: the reset is lost" src/causal/counter.rs \
    'row.numbers.reset = row.numbers.counted;' ''
mutant "delta: forgets what is gone" src/causal.rs \
    '*ctx.ranges_mut(ix) = self.ctx.ranges(ix).minus(known.ranges(ix));' \
    'let _ = &known; *ctx.ranges_mut(ix) = self.ctx.ranges(ix).minus(self.ctx.ranges(ix));'
mutant "text: siblings in the order of arrival" src/sequence/layout.rs \
    '> key => place.1 += 1' '> key && false => place.1 += 1'
mutant "text: reclaims what is an origin" src/sequence/layout.rs \
    'origins.extend(chunk.spans[at].origin);' ''
mutant "reclaim: deletions that not all have seen" src/causal/lww_map.rs \
    'write.value.is_some() || !stable(*dot)' 'write.value.is_some()'
mutant "decoder: live events outside the context" src/causal/codec.rs \
    'seq == 0 || seq > SEQ_MAX || !ctx.ranges(actor).contains(seq)' 'seq == 0 || seq > SEQ_MAX'
mutant "JSON: large integers are numbers" src/codec/json.rs \
    'if value <= EXACT_MAX { Json::from(value) } else { Json::from(value.to_string()) }' \
    'Json::from(value)'
mutant "context: gaps are closed" src/ranges.rs \
    'if lo <= self.head + 1 {' 'if lo <= self.head + 2 {'

echo "$survivors not caught"
[ "$survivors" -eq 0 ]
