"""The API under a name of one's own, with a certificate that renews itself."""

from __future__ import annotations

from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as targets
from constructs import Construct

from cdk.stages import Stage


class Domain(Construct):
    """With a hosted zone the certificate and the record are made here; without, the stage names its certificate."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, api: apigateway.RestApi) -> None:
        super().__init__(scope, name)
        if not (stage.hosted_zone_id or stage.certificate_arn):
            msg = f"the domain {stage.domain} of {stage.name} needs a hosted_zone_id or a certificate_arn"
            raise ValueError(msg)
        zone = self._zone(stage)
        api.add_domain_name(
            "Domain",
            domain_name=stage.domain,
            certificate=self._certificate(stage, zone),
            endpoint_type=apigateway.EndpointType.REGIONAL,
            security_policy=apigateway.SecurityPolicy.TLS_1_2,
        )
        if zone:
            alias = route53.RecordTarget.from_alias(targets.ApiGateway(api))
            route53.ARecord(self, "A", zone=zone, target=alias)
            route53.AaaaRecord(self, "Aaaa", zone=zone, target=alias)
        self.url = f"https://{stage.domain}/"

    def _zone(self, stage: Stage) -> route53.IHostedZone | None:
        if not stage.hosted_zone_id:
            return None
        # Records without a name of their own get the zone's: what stands here is the name that they shall have.
        return route53.HostedZone.from_hosted_zone_attributes(
            self, "Zone", hosted_zone_id=stage.hosted_zone_id, zone_name=stage.domain
        )

    def _certificate(self, stage: Stage, zone: route53.IHostedZone | None) -> acm.ICertificate:
        if stage.certificate_arn:
            return acm.Certificate.from_certificate_arn(self, "Certificate", stage.certificate_arn)
        return acm.Certificate(
            self,
            "Certificate",
            domain_name=stage.domain,
            validation=acm.CertificateValidation.from_dns(zone),
        )
