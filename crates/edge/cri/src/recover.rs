//! Takes up what an earlier daemon left.

use std::sync::Arc;

use model::Result;

use crate::Cri;

impl Cri {
    /// Knows again every pod and container that lives, and reclaims what belongs to none.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        Ok(())
    }
}
