//! Node Resource Interface: plugins that see and adjust pods and containers.
