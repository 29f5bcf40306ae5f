//! Brokers at the name server.

use super::ext_header;

ext_header! {
    /// Header of REGISTER_BROKER (103).
    pub struct RegisterBrokerHeader<'a> {
        /// The broker's name.
        pub broker_name: &'a str = "brokerName",
        /// Its address.
        pub broker_addr: &'a str = "brokerAddr",
        /// Its cluster.
        pub cluster_name: &'a str = "clusterName",
        /// Its address for replicas.
        pub ha_server_addr: Option<&'a str> = "haServerAddr",
        /// Its id; 0 is the master.
        pub broker_id: i64 = "brokerId",
        /// When it counts as dead without a heartbeat, in ms.
        pub heartbeat_timeout_millis: Option<i64> = "heartbeatTimeoutMillis",
        /// Whether a replica may act as master.
        pub enable_acting_master: Option<bool> = "enableActingMaster",
        /// Whether the body is compressed.
        pub compressed: bool = "compressed" or false,
        /// CRC32 of the body without the top bit; 0 for none.
        pub body_crc32: i32 = "bodyCrc32" or 0,
        /// The broker's zone.
        pub zone_name: Option<&'a str> = "__ZONE_NAME",
    }
}

ext_header! {
    /// Header of REGISTER_BROKER's answer.
    pub struct RegisterBrokerResponseHeader<'a> {
        /// The master's address for replicas.
        pub ha_server_addr: Option<&'a str> = "haServerAddr",
        /// The master's address.
        pub master_addr: Option<&'a str> = "masterAddr",
    }
}

ext_header! {
    /// Header of UNREGISTER_BROKER (104) and QUERY_DATA_VERSION (322).
    pub struct BrokerIdentityHeader<'a> {
        /// The broker's name.
        pub broker_name: &'a str = "brokerName",
        /// Its address.
        pub broker_addr: &'a str = "brokerAddr",
        /// Its cluster.
        pub cluster_name: &'a str = "clusterName",
        /// Its id.
        pub broker_id: i64 = "brokerId",
    }
}

ext_header! {
    /// Header of QUERY_DATA_VERSION's answer.
    pub struct QueryDataVersionResponseHeader {
        /// Whether the name server knows another version than the one asked about.
        pub changed: bool = "changed",
    }
}

ext_header! {
    /// Header of BROKER_HEARTBEAT (904).
    pub struct BrokerHeartbeatHeader<'a> {
        /// Its cluster.
        pub cluster_name: &'a str = "clusterName",
        /// Its address.
        pub broker_addr: &'a str = "brokerAddr",
        /// The broker's name.
        pub broker_name: &'a str = "brokerName",
        /// Its id.
        pub broker_id: Option<i64> = "brokerId",
        /// Its epoch.
        pub epoch: Option<i32> = "epoch",
        /// End of its log.
        pub max_offset: Option<i64> = "maxOffset",
        /// End of what its replicas have.
        pub confirm_offset: Option<i64> = "confirmOffset",
        /// When it counts as dead without a heartbeat, in ms.
        pub heartbeat_timeout_millis: Option<i64> = "heartbeatTimeoutMillis",
        /// Priority in an election.
        pub election_priority: Option<i32> = "electionPriority",
    }
}
