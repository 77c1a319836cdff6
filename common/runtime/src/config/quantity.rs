//! Durations and sizes as text with a unit, for `#[serde(with = "...")]`.

/// A [`Duration`](std::time::Duration) as text such as `90s` or `1h30m`.
pub mod duration_text {
    use std::time::Duration;

    use millrace_common::text::{ShowDuration, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes the duration with its units.
    ///
    /// # Errors
    /// Where the serializer refuses text.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&ShowDuration(*duration))
    }

    /// Reads a duration with units.
    ///
    /// # Errors
    /// Where the text is not a duration with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// An optional [`Duration`](std::time::Duration) as text; combine it with `#[serde(default)]`.
pub mod optional_duration_text {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// Writes the duration with its units, or nothing.
    ///
    /// # Errors
    /// Where the serializer refuses text.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration_text::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a duration with units.
    ///
    /// # Errors
    /// Where the text is not a duration with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::duration_text::deserialize(deserializer).map(Some)
    }
}

/// A number of bytes as text such as `256MiB`.
pub mod size_text {
    use millrace_common::text::parse_size;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// The units that are written; the largest one that divides the size is taken.
    const UNITS: &[(u64, &str)] =
        &[(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];

    /// Writes the size with the largest unit that divides it.
    ///
    /// # Errors
    /// Where the serializer refuses text.
    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let unit = UNITS.iter().find(|(size, _)| *bytes >= *size && bytes.is_multiple_of(*size));
        let (size, name) = unit.copied().unwrap_or((1, "B"));
        serializer.collect_str(&format_args!("{}{name}", bytes / size))
    }

    /// Reads a size with a unit.
    ///
    /// # Errors
    /// Where the text is not a size with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse_size(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
