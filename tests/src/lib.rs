

pub mod laws;
