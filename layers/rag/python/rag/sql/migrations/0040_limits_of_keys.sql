-- What a key may use is the operators' to say: the API gives a successor what the key before had, and changes no number.

revoke update (requests_per_minute, requests_per_day, tokens_per_day, tokens_per_month, usd_per_day, usd_per_month) on api_keys from rag_query;
