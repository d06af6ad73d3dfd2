//! What `crictl info` shows beside the conditions.

use std::collections::BTreeMap;

use serde_json::json;

use super::configuration;
use crate::Cri;

impl Cri {
    /// Texts and JSON by containerd's names.
    pub(super) fn verbose_status(&self) -> BTreeMap<String, String> {
        let dirs = configuration::Dirs {
            daemon: &self.engine.root,
            root: &self.root_dir(),
            state: &self.state_dir(),
        };
        let mut info = BTreeMap::from([
            ("config".to_owned(), configuration::json(&self.config, &dirs).to_string()),
            ("cniconfig".to_owned(), self.networks.describe().to_string()),
            ("runtime".to_owned(), json!({ "version": self.engine.version }).to_string()),
            ("lastCNILoadStatus".to_owned(), self.networks.load_status()),
            ("lastCNILoadStatus.default".to_owned(), self.networks.load_status()),
        ]);
        let own = self.own_networks.each();
        info.extend(
            own.map(|(name, networks)| (format!("lastCNILoadStatus.{name}"), networks.load_status())),
        );
        info
    }
}
