//! Scn: Oracle's change numbers and the time that the database tells of one.
//!
//! Promises: a number rises with every change and commit. The map from number to time is written every three seconds, so
//! that a number's time is told up to three seconds late (`SCN_TO_TIMESTAMP`, by the vendor's documents; never compared
//! with a real server). The earliest time that it can mean is what a bound may be made of.
//! Never: tells a time later than the change's as its earliest.

/// How often the map is written, microseconds.
const GRAIN: i64 = 3_000_000;

/// A change number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Scn(u64);

#[derive(Debug, Default)]
pub(super) struct Scns {
    last: u64,
    /// First number of each stretch of three seconds, and the stretch's begin.
    map: Vec<(Scn, i64)>,
}

impl Scns {
    /// The number of a change made now.
    pub(super) fn next(&mut self, now: i64) -> Scn {
        self.last += 1;
        let begin = now.div_euclid(GRAIN) * GRAIN;
        // Another one, not a later one: the clock may be set back.
        if self.map.last().is_none_or(|(_, at)| *at != begin) {
            self.map.push((Scn(self.last), begin));
        }
        Scn(self.last)
    }

    /// What the database says, up to three seconds late.
    fn told(&self, scn: Scn) -> i64 {
        let after = self.map.partition_point(|(first, _)| *first <= scn);
        self.map.get(after.wrapping_sub(1)).map_or(0, |(_, begin)| begin + GRAIN)
    }

    /// The earliest time that the told one can stand for.
    pub(super) fn earliest(&self, scn: Scn) -> i64 {
        let off = if runtime::mutant::is("scn_time_exact") { 0 } else { GRAIN };
        self.told(scn) - off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_told_late_and_its_earliest_time_is_not() {
        let mut scns = Scns::default();
        for now in [1, 2_999_999, 3_000_000, 7_500_000, 60_000_001] {
            let scn = scns.next(now);
            let (told, earliest) = (scns.told(scn), scns.earliest(scn));
            assert!(told > now && told <= now + GRAIN, "{now}: {told}");
            assert!(earliest <= now && earliest > now - GRAIN, "{now}: {earliest}");
        }
        let (set_back, before) = (scns.next(30_000_000), scns.next(60_000_002));
        assert_eq!((scns.earliest(set_back), scns.earliest(before)), (30_000_000, 60_000_000));
    }
}
