//! What a site works with, sealed into its `site` volume: the model that its jobs name.

mod error;
mod model;

pub use error::WorkloadError;
pub use model::seal as seal_model;
