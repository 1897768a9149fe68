"""The Data stack: what must outlive any deployment."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.arrivals import Arrivals
from cdk.backups import Backups
from cdk.bastion import Bastion
from cdk.buckets import Buckets
from cdk.cache import Cache
from cdk.database import Database
from cdk.guards import Guards
from cdk.keys import Keys
from cdk.network import Network
from cdk.roles import boundary
from cdk.stack import StageStack
from cdk.stages import Stage


class DataStack(StageStack):
    """Network, keys, database, cache, buckets, and the queue that a bucket's events go to."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage) -> None:
        super().__init__(scope, name, stage=stage, description="RAG: network, database, cache and buckets")
        self.boundary = boundary(self, stage)
        if self.boundary:
            iam.PermissionsBoundary.of(self).apply(self.boundary)
        self.keys = Keys(self, "keys", stage=stage)
        buckets = Buckets(self, "buckets", stage=stage, keys=self.keys)
        self.documents, self.backups_bucket, self.logs_bucket = buckets.documents, buckets.backups, buckets.logs
        self.arrivals = Arrivals(self, "arrivals", stage=stage, keys=self.keys, documents=self.documents)
        self.network = Network(
            self, "network", stage=stage, keys=self.keys, buckets=[self.documents, self.backups_bucket]
        )
        self.database = Database(self, "database", stage=stage, keys=self.keys, network=self.network)
        self.cache = Cache(self, "cache", stage=stage, keys=self.keys, network=self.network)
        if stage.protected:
            Backups(self, "backups", stage=stage, keys=self.keys, database=self.database)
        if stage.bastion:
            Bastion(self, "bastion", stage=stage, network=self.network, database=self.database, cache=self.cache)
        if stage.account_guards and self.logs_bucket:
            watched = [self.documents, self.backups_bucket]
            Guards(self, "guards", stage=stage, keys=self.keys, logs=self.logs_bucket, watched=watched)
