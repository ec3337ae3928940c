//! What a site works with, sealed into its `site` volume: the model that its jobs name, and the
//! image that it runs instead of the guest's own NVFLARE.

pub mod docker;
mod error;
mod model;

pub use error::WorkloadError;
pub use model::seal as seal_model;
