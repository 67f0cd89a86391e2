from django.db import models, transaction

from realtime import notify


class Quote(models.Model):
    symbol = models.SlugField(primary_key=True)
    price = models.FloatField(default=0)
    # Counts the prices. What a page is told may be older than the snapshot that it has, and that is how it knows.
    number = models.PositiveBigIntegerField(default=0)

    @property
    def frame(self):
        return {"type": "quote", "symbol": self.symbol, "price": self.price, "number": self.number}

    @classmethod
    def publish(cls, symbol, price):
        """Store the price for those who come later, and tell those who are here."""
        with transaction.atomic():
            cls.objects.get_or_create(symbol=symbol)
            quote = cls.objects.select_for_update().get(symbol=symbol)
            quote.price, quote.number = price, quote.number + 1
            quote.save()
            notify(f"prices.{symbol}", quote.frame)
