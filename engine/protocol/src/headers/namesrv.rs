//! What clients and tools ask the name server.

use super::ext_header;

ext_header! {
    /// Header of GET_ROUTEINFO_BY_TOPIC (105).
    pub struct GetRouteInfoHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Whether only standard JSON is understood.
        pub accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }
}

ext_header! {
    /// Header of PUT_KV_CONFIG (100).
    pub struct PutKvConfigHeader<'a> {
        /// Namespace.
        pub namespace: &'a str = "namespace",
        /// Key.
        pub key: &'a str = "key",
        /// Value.
        pub value: &'a str = "value",
    }
}

ext_header! {
    /// Header of GET_KV_CONFIG (101) and DELETE_KV_CONFIG (102).
    pub struct KvConfigHeader<'a> {
        /// Namespace.
        pub namespace: &'a str = "namespace",
        /// Key.
        pub key: &'a str = "key",
    }
}

ext_header! {
    /// Header of GET_KV_CONFIG's answer.
    pub struct GetKvConfigResponseHeader<'a> {
        /// Value.
        pub value: Option<&'a str> = "value",
    }
}

ext_header! {
    /// Header of GET_KVLIST_BY_NAMESPACE (219).
    pub struct NamespaceHeader<'a> {
        /// Namespace.
        pub namespace: &'a str = "namespace",
    }
}

ext_header! {
    /// Header of WIPE_WRITE_PERM_OF_BROKER (205) and ADD_WRITE_PERM_OF_BROKER (327).
    pub struct BrokerNameHeader<'a> {
        /// The broker's name.
        pub broker_name: &'a str = "brokerName",
    }
}

ext_header! {
    /// Header of WIPE_WRITE_PERM_OF_BROKER's answer.
    pub struct WipeWritePermResponseHeader {
        /// Topics changed.
        pub wipe_topic_count: i32 = "wipeTopicCount",
    }
}

ext_header! {
    /// Header of ADD_WRITE_PERM_OF_BROKER's answer.
    pub struct AddWritePermResponseHeader {
        /// Topics changed.
        pub add_topic_count: i32 = "addTopicCount",
    }
}

ext_header! {
    /// Header of DELETE_TOPIC_IN_NAMESRV (216).
    pub struct DeleteTopicInNamesrvHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Cluster; all when missing.
        pub cluster_name: Option<&'a str> = "clusterName",
    }
}

ext_header! {
    /// Header of GET_TOPICS_BY_CLUSTER (224).
    pub struct ClusterHeader<'a> {
        /// Cluster.
        pub cluster: &'a str = "cluster",
    }
}
