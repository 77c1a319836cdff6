//! What the tests of the `aoi` kind share: a plant with an FTP server, databases, and rows to compare.

pub(crate) mod databases;
pub(crate) mod plant;
pub(crate) mod rows;
