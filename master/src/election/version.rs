//! Versions of etcd, and which are too old to trust with leases.

use std::{fmt, str::FromStr};

/// The oldest releases without the known faults: leases revoked by a deposed leader of etcd, renewals answered with
/// success after the lease was revoked, stale reads after a pause, permissions passed over in nested transactions.
const FLOORS: [Version; 2] = [Version(3, 5, 30), Version(3, 6, 11)];

/// A version of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// Tells whether this release, or one before it in the same line, has everything that we rely on.
    pub(crate) fn is_sound(self) -> bool {
        let is_of_line = |floor: &Version| (floor.0, floor.1) == (self.0, self.1);
        match FLOORS.iter().find(|floor| is_of_line(floor)) {
            Some(floor) => self >= *floor,
            None => FLOORS.iter().all(|floor| self > *floor),
        }
    }

    /// Returns what to say about a version that is not sound.
    pub(crate) fn floors() -> String {
        FLOORS.map(|floor| floor.to_string()).join(" or ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A text that is not three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        // What follows a dash or a plus names a build.
        let numbers = text.split(['-', '+']).next().unwrap_or(text);
        let mut numbers = numbers.split('.').map(|number| number.parse().map_err(|_| NoVersion));
        let mut next = || numbers.next().unwrap_or(Err(NoVersion));
        let version = Self(next()?, next()?, next()?);
        if numbers.next().is_some() { Err(NoVersion) } else { Ok(version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_floor() {
        let rows = [
            ("3.4.23", false),
            ("3.4.44", false),
            ("3.5.29", false),
            ("3.5.30", true),
            ("3.5.31-rc.0", true),
            ("3.6.0", false),
            ("3.6.10", false),
            ("3.6.11", true),
            ("3.7.0", true),
            ("4.0.0", true),
        ];
        for (text, is_sound) in rows {
            assert_eq!(text.parse::<Version>().unwrap().is_sound(), is_sound, "{text}");
        }
        for text in ["", "3.5", "3.5.x", "3.5.1.2", "v3.5.1"] {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text}");
        }
        assert_eq!(Version::floors(), "3.5.30 or 3.6.11");
    }
}
